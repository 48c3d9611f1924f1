SELECT pg_catalog.pg_advisory_lock(1), "setseed"(0.5), dblink_exec('', '')
