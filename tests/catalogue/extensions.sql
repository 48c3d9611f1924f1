-- What needs the extensions.
SET search_path = catalogue;
CREATE EXTENSION citext SCHEMA catalogue;
CREATE EXTENSION hstore SCHEMA catalogue;
CREATE EXTENSION ltree SCHEMA catalogue;
CREATE EXTENSION cube SCHEMA catalogue;
CREATE TYPE citextrange AS RANGE (subtype = citext);
CREATE TYPE cuberange AS RANGE (subtype = cube);
CREATE TYPE deep AS (
    p pair, ps pair[], m mood, h hstore, r int4range, d posint, b bytea, f float8, bits varbit, nothing text, addr inet
);
