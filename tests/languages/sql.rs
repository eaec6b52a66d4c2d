//! SQL: in the full run every rendering is executed, on SQLite where its template is for SQLite, else on PostgreSQL. A
//! migration goes up, down and up again, and its way down leaves nothing behind; any other script runs twice.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::postgres::Postgres;
use crate::table::Table;
use crate::{Rendered, full, tool};

pub fn check(rendered: &[Rendered], table: &mut Table) {
    tool::parse(rendered, table);
    if !full() {
        return;
    }
    let postgres = Postgres::start();
    for one in rendered {
        let Some(table_of) = rendered.iter().find(|other| other.template == base(one) && other.set == one.set) else {
            table.not_checked(name(one), &one.template, "the table it is about is not among the templates looked at");
            continue;
        };
        table.checked(name(one), one);
        let complaint = if is_sqlite(one) { sqlite(one, table_of) } else { postgresql(one, table_of, &postgres.url()) };
        if let Err(complaint) = complaint {
            table.complain(name(one), one, &complaint);
        }
    }
}

fn name(one: &Rendered) -> &'static str {
    if is_sqlite(one) { "SQLite, up and down" } else { "PostgreSQL, up and down" }
}

fn is_sqlite(one: &Rendered) -> bool {
    one.template.contains("sqlite")
}

/// The template that makes the table which others in its dialect are about.
fn base(one: &Rendered) -> &'static str {
    if is_sqlite(one) { "sql-database-sqlite" } else { "sql-database" }
}

/// The parts of a migration, or `None` where the script is none.
fn parts(one: &Rendered) -> Option<(&str, &str)> {
    let (up, down) = one.text.split_once("-- migrate:down")?;
    Some((up, down.split_once('\n').map_or("", |(_, rest)| rest)))
}

/// What is there before the script: nothing, the table's key alone, or the table with all its columns.
fn before(one: &Rendered, table_of: &Rendered) -> String {
    let whole = parts(table_of).map_or("", |(up, _)| up);
    let table = whole.split("CREATE TABLE ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    match one.template.as_str() {
        "sql-database"
        | "sql-database-sqlite"
        | "sql-database-queries"
        | "sql-database-queue"
        | "sql-database-tree"
        | "sql-performance-partition"
        | "sql-configuration" => String::new(),
        "sql-database-add-columns" | "sql-database-many-to-many" | "sql-security" | "sql-database-audit" => format!(
            "CREATE TABLE {table} (id uuid PRIMARY KEY, created_at timestamptz NOT NULL DEFAULT now(), tenant_id uuid);\n\
             INSERT INTO {table} VALUES (gen_random_uuid()), (gen_random_uuid());\n"
        ),
        "sql-database-many-to-many-pair" => {
            format!("CREATE TABLE {table} (id uuid PRIMARY KEY);\nCREATE TABLE courses (id uuid PRIMARY KEY);\n")
        }
        "sql-database-references" => "CREATE TABLE owners (id uuid PRIMARY KEY);\n".to_owned(),
        "sql-testing-pgtap" => format!("{PGTAP}{whole}"),
        // Who has the column deletes softly already.
        "sql-database-soft-delete" => {
            whole.lines().filter(|line| !line.contains("\"deleted_at\"")).map(|line| format!("{line}\n")).collect()
        }
        // Where the set's fields ask for more than an index has, it is about its own.
        "sql-performance-composite" => format!(
            "{whole}ALTER TABLE {table} ADD COLUMN IF NOT EXISTS customer_id bigint, ADD COLUMN IF NOT EXISTS total numeric;\n"
        ),
        _ => whole.to_owned(),
    }
}

/// What the template uses of pgTAP, with the parameters that its documentation names: each fails where its test would.
const PGTAP: &str = r#"
    CREATE OR REPLACE FUNCTION no_plan() RETURNS SETOF text LANGUAGE sql AS $$ SELECT '' $$;
    CREATE OR REPLACE FUNCTION finish() RETURNS SETOF text LANGUAGE sql AS $$ SELECT '' $$;
    CREATE OR REPLACE FUNCTION demand(holds boolean, label text) RETURNS text LANGUAGE plpgsql AS $$
        BEGIN IF holds IS NOT TRUE THEN RAISE EXCEPTION 'not ok: %', label; END IF; RETURN 'ok'; END $$;
    CREATE OR REPLACE FUNCTION has_table(t name) RETURNS text LANGUAGE sql AS $$ SELECT demand(to_regclass(quote_ident(t)) IS NOT NULL, t) $$;
    CREATE OR REPLACE FUNCTION keys(t name, kind "char", c name) RETURNS boolean LANGUAGE sql AS $$
        SELECT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conrelid = quote_ident(t)::regclass AND k.contype = kind
            AND (c IS NULL OR k.conkey = ARRAY(SELECT attnum FROM pg_attribute WHERE attrelid = k.conrelid AND attname = c))) $$;
    CREATE OR REPLACE FUNCTION has_pk(t name) RETURNS text LANGUAGE sql AS $$ SELECT demand(keys(t, 'p', NULL), t) $$;
    CREATE OR REPLACE FUNCTION col_is_unique(t name, c name) RETURNS text LANGUAGE sql AS $$ SELECT demand(keys(t, 'u', c), c) $$;
    CREATE OR REPLACE FUNCTION col(t name, c name) RETURNS SETOF pg_attribute LANGUAGE sql AS $$
        SELECT * FROM pg_attribute WHERE attrelid = quote_ident(t)::regclass AND attname = c $$;
    CREATE OR REPLACE FUNCTION has_column(t name, c name) RETURNS text LANGUAGE sql AS $$ SELECT demand(EXISTS (SELECT FROM col(t, c)), c) $$;
    CREATE OR REPLACE FUNCTION col_type_is(t name, c name, type text) RETURNS text LANGUAGE sql AS $$
        SELECT demand((SELECT format_type(atttypid, atttypmod) = type FROM col(t, c)), c || ' ' || type) $$;
    CREATE OR REPLACE FUNCTION col_not_null(t name, c name) RETURNS text LANGUAGE sql AS $$ SELECT demand((SELECT attnotnull FROM col(t, c)), c) $$;
    CREATE OR REPLACE FUNCTION col_is_null(t name, c name) RETURNS text LANGUAGE sql AS $$ SELECT demand((SELECT NOT attnotnull FROM col(t, c)), c) $$;
    CREATE OR REPLACE FUNCTION lives_ok(q text, label text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN EXECUTE q; RETURN 'ok'; END $$;
    CREATE OR REPLACE FUNCTION throws_ok(q text, code char(5), message text, label text) RETURNS text LANGUAGE plpgsql AS $$
        BEGIN EXECUTE q; RETURN demand(false, label); EXCEPTION WHEN OTHERS THEN RETURN demand(SQLSTATE = code, label); END $$;
"#;

/// What there is in the schema, one line a thing.
const SNAPSHOT: &str = "CREATE TEMP VIEW there AS
    SELECT 'relation ' || relname || ' ' || relkind::text || relrowsecurity || relforcerowsecurity || coalesce(relacl::text, '') AS what
    FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION SELECT 'column ' || a.attrelid::regclass || '.' || a.attname || ' ' || a.atttypid::regtype || a.attnotnull
        || a.attstattarget || coalesce(col_description(a.attrelid, a.attnum), '')
    FROM pg_attribute AS a INNER JOIN pg_class AS c ON c.oid = a.attrelid
    WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
    UNION SELECT 'routine ' || oid::regprocedure FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION SELECT 'trigger ' || tgname || ' ' || tgrelid::regclass FROM pg_trigger WHERE NOT tgisinternal
    UNION SELECT 'policy ' || polname || ' ' || polrelid::regclass FROM pg_policy
    UNION SELECT 'role ' || rolname FROM pg_roles;\n";

/// What a revoked right leaves in a list of rights is the owner's own, written out.
const NO_OWN_RIGHTS: &str = "regexp_replace(what, '[{]tandem=[a-zA-Z]*/tandem[}]$', '')";

fn postgresql(one: &Rendered, table_of: &Rendered, url: &str) -> Result<(), String> {
    let clean = "SET client_min_messages = warning; DROP SCHEMA public CASCADE; CREATE SCHEMA public;\n";
    let before = before(one, table_of);
    let Some((up, down)) = parts(one) else {
        psql(url, &format!("{clean}{before}{0}\nDEALLOCATE ALL;\n{0}", one.text))?;
        return if one.template == "sql-testing" { can_fail(one, &before, url) } else { Ok(()) };
    };
    let difference = |a: &str, b: &str, said: &str| {
        format!(
            "SELECT '!{said} ' || w FROM (SELECT {NO_OWN_RIGHTS} AS w FROM {a} EXCEPT SELECT {NO_OWN_RIGHTS} FROM {b}) AS d;\n"
        )
    };
    let script = [
        clean,
        &before,
        SNAPSHOT,
        "CREATE TEMP TABLE was AS TABLE there;\n",
        up,
        "\nSELECT '!up changed nothing' WHERE NOT EXISTS (TABLE there EXCEPT TABLE was);\n",
        down,
        "\n",
        &difference("there", "was", "left behind:"),
        &difference("was", "there", "lost:"),
        up,
        "\n",
        down,
    ];
    let said = psql(url, &script.concat())?;
    let wrong: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix('!')).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// A test of a table must find out that a constraint is gone.
fn can_fail(one: &Rendered, before: &str, url: &str) -> Result<(), String> {
    if !one.text.contains("must not be null") {
        return Ok(());
    }
    let loosen = "DO $$ DECLARE c record; BEGIN FOR c IN SELECT table_name, column_name FROM information_schema.columns \
        WHERE table_schema = 'public' AND is_nullable = 'NO' AND column_name NOT IN ('id', 'created_at', 'updated_at') \
        LOOP EXECUTE format('ALTER TABLE %I ALTER COLUMN %I DROP NOT NULL', c.table_name, c.column_name); END LOOP; END $$;\n";
    let clean = "SET client_min_messages = warning; DROP SCHEMA public CASCADE; CREATE SCHEMA public;\n";
    match psql(url, &format!("{clean}{before}{loosen}{}", one.text)) {
        Ok(_) => Err("it passes for a table without its NOT NULLs".to_owned()),
        Err(said) if said.contains("must not be null") => Ok(()),
        Err(said) => Err(said),
    }
}

/// Runs a script statement by statement, up to the first that fails.
fn psql(url: &str, script: &str) -> Result<String, String> {
    let mut command = Command::new(tool::needed("psql"));
    command.args(["-X", "-q", "-A", "-t", "--set", "ON_ERROR_STOP=1", "--file", "-", url]);
    fed(&mut command, script)
}

fn sqlite(one: &Rendered, table_of: &Rendered) -> Result<(), String> {
    let before = before(one, table_of);
    let schema = "SELECT '#' || type || ' ' || name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY 1;\n";
    let Some((up, down)) = parts(one) else {
        run_sqlite(&format!("{before}{0}\n{0}", one.text))?;
        return Ok(());
    };
    let script = [
        &before,
        schema,
        "SELECT '--';\n",
        up,
        "\nSELECT '--';\n",
        schema,
        "SELECT '--';\n",
        down,
        "\nSELECT '--';\n",
        schema,
        up,
    ];
    let said = run_sqlite(&script.concat())?;
    let things = |part: &str| part.lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    let stages: Vec<&str> = said.split("--\n").collect();
    let [was, _, changed, _, is] = stages.first_chunk::<5>().ok_or("SQLite did not get to the end")?;
    if things(was) == things(changed) {
        return Err("up changed nothing".to_owned());
    }
    if things(was) != things(is) {
        return Err(format!("down leaves something else than there was:\n{was}\n{is}"));
    }
    Ok(())
}

fn run_sqlite(script: &str) -> Result<String, String> {
    fed(Command::new(tool::needed("sqlite3")).args(["-batch", "-bail"]), script)
}

/// Runs a program with a script as its standard input.
fn fed(command: &mut Command, script: &str) -> Result<String, String> {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let script = script.to_owned();
    // It may end before it has read all.
    let writing = std::thread::spawn(move || stdin.write_all(script.as_bytes()).is_ok());
    let done = child.wait_with_output().unwrap();
    writing.join().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let error = String::from_utf8_lossy(&done.stderr);
    if done.status.success() { Ok(said) } else { Err(error.into_owned()) }
}
