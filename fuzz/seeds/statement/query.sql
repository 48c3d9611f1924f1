SELECT 'a;b', E'a\';b', $$;$$, "a;b", $tag$ ; $tag$ FROM t -- ; x
WHERE a = $1 /* ; /* nested */ COMMIT */;
