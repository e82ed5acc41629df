-- The entry route's own insert, as the application's role, rolled back. `columns` and `key` are those of its source,
-- joined by commas, `literals` a JSON object of values that stand there; `role` may not exist here. Values that a
-- sequence would give are given, so that none is used up.
DO $$ BEGIN -- the messages of some servers are in Russian, and only a superuser may change that
  IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN SET lc_messages = 'C'; END IF;
END $$;
SET LOCAL statement_timeout = '30s';
SELECT set_config('entry.columns', :'columns', true), set_config('entry.key', :'key', true),
  set_config('entry.literals', :'literals', true) \g /dev/null
SELECT format('SET LOCAL ROLE %I', rolname) FROM pg_roles WHERE rolname = :'role' AND pg_has_role(oid, 'member') \gexec
DO $entry$
DECLARE
  wanted text[] := string_to_array(current_setting('entry.columns'), ',');
  key text := current_setting('entry.key');
  literals json := current_setting('entry.literals');
  lacking text;
  names text;
  givens text;
  insert text;
BEGIN
  SELECT string_agg(name, ',') INTO lacking FROM unnest(wanted) AS name WHERE NOT EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = 'companies'::regclass AND attname = name AND attnum > 0);
  IF lacking IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'undefined_column', MESSAGE = 'no column ' || lacking, COLUMN = lacking;
  END IF;
  SELECT string_agg(sequence, ', ') INTO lacking
    FROM (SELECT pg_get_serial_sequence('companies', attname) AS sequence FROM pg_attribute
          WHERE attrelid = 'companies'::regclass AND attnum > 0 AND NOT attisdropped) AS used
    WHERE NOT has_sequence_privilege(sequence, 'USAGE');
  IF lacking IS NOT NULL OR EXISTS (SELECT FROM unnest('{SELECT,INSERT,UPDATE}'::text[]) AS needed
                                    WHERE NOT has_table_privilege('companies', needed)) THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', COLUMN = coalesce(lacking, ''),
      MESSAGE = format('the role %s may not write into companies', current_user);
  END IF;
  SELECT string_agg(quote_ident(attname), ', '), string_agg(
      coalesce(quote_literal(literals ->> attname), CASE typcategory
        WHEN 'N' THEN '-1'
        WHEN 'B' THEN 'true'
        WHEN 'D' THEN 'now()'
        WHEN 'S' THEN '''?'''
        WHEN 'E' THEN (SELECT quote_literal(enumlabel) FROM pg_enum WHERE enumtypid = atttypid LIMIT 1)
        ELSE CASE typname WHEN 'uuid' THEN '''00000000-0000-0000-0000-000000000000''' WHEN 'json' THEN '''{}''' WHEN 'jsonb' THEN '''{}''' ELSE 'NULL' END
      END), ', ')
    INTO names, givens
    FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
      LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
    WHERE attrelid = 'companies'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
      AND (attname = ANY (wanted) OR attidentity <> '' OR pg_get_expr(adbin, adrelid) LIKE 'nextval(%');
  insert := format('INSERT INTO companies (%s) OVERRIDING SYSTEM VALUE VALUES (%s)', names, givens) || CASE
    WHEN key = '' THEN '' ELSE format(' ON CONFLICT (%s) DO UPDATE SET %s', key, (
      SELECT string_agg(format('%I = EXCLUDED.%I', name, name), ', ') FROM unnest(wanted) AS name)) END;
  EXECUTE insert;
  IF key <> '' THEN EXECUTE insert; END IF; -- a salon that comes again
END
$entry$;
