use super::*;

/// The programs of each language: a good one, the same without error handling, the same with empty bodies; twice.
const SAMPLES: [(Language, &str); 7] = [
    (Language::Rust, include_str!("samples/rust.txt")),
    (Language::Python, include_str!("samples/python.txt")),
    (Language::Go, include_str!("samples/go.txt")),
    (Language::JavaScript, include_str!("samples/javascript.txt")),
    (Language::TypeScript, include_str!("samples/typescript.txt")),
    (Language::Elixir, include_str!("samples/elixir.txt")),
    (Language::Sql, include_str!("samples/sql.txt")),
];

struct Program {
    language: Language,
    good: &'static str,
    unhandled: &'static str,
    empty: &'static str,
}

fn programs() -> Vec<Program> {
    let mut found = Vec::new();
    for (language, text) in SAMPLES {
        let mut sections =
            text.strip_prefix("=== ").unwrap().split("\n=== ").map(|section| section.split_once('\n').unwrap());
        while let Some((name, good)) = sections.next() {
            let (unhandled, empty) = (sections.next().unwrap(), sections.next().unwrap());
            assert_eq!((name, unhandled.0, empty.0), ("good", "unhandled", "empty"));
            found.push(Program { language: language.clone(), good, unhandled: unhandled.1, empty: empty.1 });
        }
    }
    found
}

fn code(text: &str, language: &Language) -> Evaluation {
    evaluate(text, Kind::Code(language))
}

/// The quality of a good program, of what was made worse of it, and why that should be less.
fn check_worse(language: &Language, good: &str, worse: &str, what: &str) {
    let (good, worse) = (code(good, language), code(worse, language));
    assert!(worse.quality < good.quality, "{language}, {what}: {worse:?} is not below {good:?}");
}

fn lines(text: &str, count: usize) -> String {
    text.split_inclusive('\n').take(count).collect()
}

#[test]
fn good_programs_parse_and_score_high() {
    for Program { language, good, .. } in programs() {
        assert_eq!(first_error(good, &language, None), None, "{language}");
        let evaluation = code(good, &language);
        assert!(evaluation.parses && evaluation.quality >= 0.85, "{language}: {evaluation:?}\n{good}");
        assert!(evaluation.cyclomatic.is_some());
    }
}

#[test]
fn without_error_handling_a_program_scores_less_and_with_empty_bodies_less_still() {
    for Program { language, good, unhandled, empty } in programs() {
        assert!(code(unhandled, &language).parses && code(empty, &language).parses, "{language}");
        check_worse(&language, good, unhandled, "unhandled");
        check_worse(&language, good, empty, "empty");
        check_worse(&language, unhandled, empty, "empty below unhandled");
        assert!(code(empty, &language).quality < 0.8, "{language}: {:?}\n{empty}", code(empty, &language));
    }
}

#[test]
fn a_program_cut_off_anywhere_scores_less() {
    for Program { language, good, .. } in programs() {
        let total = good.lines().count();
        for cut in total / 4..total * 3 / 4 {
            check_worse(&language, good, &lines(good, cut), &format!("first {cut} of {total} lines"));
        }
        for percent in [30, 45, 60, 75] {
            let at = good.floor_char_boundary(good.len() * percent / 100);
            check_worse(&language, good, &good[..at], &format!("first {percent} %"));
        }
    }
}

#[test]
fn a_bracket_too_few_or_too_many_is_a_parse_error_and_caps_the_score() {
    for Program { language, good, .. } in programs() {
        let closing = good.rfind([')', '}']).unwrap();
        let mut fewer = good.to_owned();
        fewer.remove(closing);
        let mut more = good.to_owned();
        more.insert(closing, ')');
        for broken in [&fewer, &more] {
            let evaluation = code(broken, &language);
            assert!(!evaluation.parses && evaluation.quality <= 0.3, "{language}: {evaluation:?}");
            assert!(first_error(broken, &language, None).is_some());
        }
    }
}

#[test]
fn a_syntax_error_is_told_with_its_place() {
    let cases: &[(Language, &str, usize, usize)] = &[
        (Language::Rust, "fn a() {\n    let x = ;\n}\n", 2, 11),
        (Language::Rust, "fn a() {\n    b();\n\nfn c() {}\n", 1, 8),
        (Language::Python, "x = 1\ndef f():\n\ny = 2\n", 2, 9),
        (Language::Python, "def f(:\n    pass\n", 1, 6),
        (Language::Go, "package a\n\nfunc b() {\n\tif x {\n}\n", 3, 10),
        (Language::JavaScript, "const a = {\n  b: 1\n  c: 2\n};\n", 3, 3),
        (Language::TypeScript, "interface A {\n  b: string;\n", 1, 13),
        (Language::Elixir, "defmodule A do\n  def b do\n    1\n  end\n", 1, 13),
        (Language::Sql, "SELECT 1;\nSELEC * FROM a;\n", 2, 1),
        (Language::Sql, "CREATE TABLE a (\n  id int,\n);\n", 3, 1),
        (Language::Sql, "SELECT é, 'a\0' FROM a;\n", 1, 13),
        (Language::Other("dockerfile".into()), "FROM a\nCMD ['b', 'c']\n", 2, 5),
        (Language::Other("yaml".into()), "a: 1\nb: 2\n\"a\": 3\n", 3, 1),
    ];
    for (language, text, line, column) in cases {
        let error = first_error(text, language, None).unwrap();
        assert_eq!((error.line, error.column), (*line, *column), "{text}\n{error}");
        assert!(text.lines().nth(line - 1).unwrap().contains(&error.excerpt));
    }
}

#[test]
fn cyclomatic_complexity_is_one_and_the_decisions() {
    let cases: &[(Language, &str, u32)] = &[
        (Language::Rust, "fn a() { b(); }", 1),
        (Language::Rust, "fn a() { if b && c { d() } else if e { f() } }", 4),
        (Language::Rust, "fn a(x: u8) -> u8 { match x { 0 => 1, 1 => 2, _ => 3 } }", 3),
        (Language::Rust, "fn a() -> R { let x = b()?; let Some(y) = x else { return c }; for _ in y {} d }", 4),
        (Language::Rust, "fn a() { let f = || 1; while f() > 0 {} }", 2),
        (
            Language::Python,
            "def a(x):\n    if x and y:\n        return 1\n    elif z:\n        return 2\n    return 3\n",
            4,
        ),
        (Language::Python, "a = [b for b in c if b]\n", 3),
        (Language::Python, "try:\n    a()\nexcept B:\n    c()\nexcept D:\n    e()\n", 3),
        (Language::Python, "match a:\n    case 1:\n        b()\n    case _:\n        c()\n", 2),
        (Language::Go, "package a\nfunc b() { for i := 0; i < 3; i++ { if c || d { e() } } }", 4),
        (Language::Go, "package a\nfunc b() { switch c { case 1: d(); case 2: e(); default: f() } }", 3),
        (Language::JavaScript, "function a(b) { return b ? c ?? d : e; }", 3),
        (Language::JavaScript, "switch (a) { case 1: b(); break; default: c(); }", 2),
        (Language::TypeScript, "function a(): void { try { b(); } catch { c(); } while (d) { e(); } }", 3),
        (Language::Elixir, "def a(b) do\n  if b and c do\n    d\n  end\nend\n", 3),
        (Language::Elixir, "case a do\n  1 -> b\n  2 -> c\n  _ -> d\nend\n", 3),
        (Language::Elixir, "Enum.map(a, fn b -> b end)\n", 1),
        (Language::Sql, "SELECT CASE WHEN a THEN 1 WHEN b THEN 2 ELSE 3 END FROM t;", 3),
    ];
    for (language, text, expected) in cases {
        let evaluation = code(text, language);
        assert!(evaluation.parses, "{text}");
        assert_eq!(evaluation.cyclomatic, Some(*expected), "{text}");
    }
}

#[test]
fn an_error_thrown_away_earns_less_than_one_that_is_met() {
    let cases: &[(Language, &str, &str)] = &[
        (
            Language::Rust,
            "fn a() -> R {\n    let x = b()?;\n    c(x)?;\n    Ok(())\n}",
            "fn a() {\n    let x = b().unwrap();\n    c(x).unwrap();\n    d(())\n}",
        ),
        (
            Language::Python,
            "def a():\n    try:\n        b()\n    except C as e:\n        log(e)\n        raise\n",
            "def a():\n    try:\n        b()\n        log(e)\n    except:\n        pass\n",
        ),
        (
            Language::Go,
            "package a\nfunc b() error {\n\tif err := c(); err != nil {\n\t\treturn err\n\t}\n\treturn d()\n}",
            "package a\nfunc b() error {\n\tif err := c(); err != nil {\n\t}\n\t_ = c()\n\treturn d()\n}",
        ),
        (
            Language::JavaScript,
            "function a() {\n  try {\n    b();\n  } catch (e) {\n    log(e);\n  }\n}",
            "function a() {\n  try {\n    b();\n    log(e);\n  } catch (e) {\n  }\n}",
        ),
        (
            Language::Elixir,
            "def a do\n  b()\n  c()\nrescue\n  e -> log(e)\nend",
            "def a do\n  b()\n  c()\nrescue\n  _ -> nil\nend",
        ),
        (
            Language::Sql,
            "DO $$ BEGIN\n  PERFORM a();\nEXCEPTION WHEN others THEN\n  RAISE NOTICE 'x';\nEND $$;",
            "DO $$ BEGIN\n  PERFORM a();\nEXCEPTION WHEN others THEN\n  NULL;\nEND $$;",
        ),
    ];
    for (language, met, thrown) in cases {
        assert!(code(met, language).parses && code(thrown, language).parses, "{language}");
        check_worse(language, met, thrown, "thrown away");
    }
}

#[test]
fn what_is_declared_for_others_is_not_empty() {
    let cases: &[(Language, &str)] = &[
        (
            Language::Python,
            "class A(ABC):\n    @abstractmethod\n    def b(self): ...\n\n    def c(self):\n        return self.b() + 1\n",
        ),
        (
            Language::Rust,
            "trait A {\n    fn b(&self) -> u8;\n    fn c(&self) -> u8 {\n        self.b() + 1\n    }\n}\n",
        ),
        (
            Language::TypeScript,
            "class A {\n  constructor(private readonly b: B) {}\n  c() {\n    return this.b.d() + 1;\n  }\n}\n",
        ),
    ];
    for (language, text) in cases {
        let Reading::Read { counts, fault: None } = read(text, language, false) else { panic!("{text}") };
        assert_eq!((counts.solid, counts.hollow), (1.0, 0.0), "{text}");
    }
}

#[test]
fn comments_and_blank_lines_are_no_code() {
    let cases: &[(Language, &str, usize)] = &[
        (Language::Rust, "// a\n\n/// b\nfn c() {\n    /* d\n       e */\n    f();\n}\n", 3),
        (
            Language::Python,
            "\"\"\"a\n\nb\"\"\"\n# c\ndef d():\n    \"\"\"e\"\"\"\n    return \"\"\"f\n    g\"\"\"\n",
            3,
        ),
        (Language::Go, "package a\n\n// b\nfunc c() {\n\td()\n}\n", 4),
        (Language::Elixir, "defmodule A do\n  @moduledoc \"\"\"\n  b\n  \"\"\"\n  # c\n  def d, do: e()\nend\n", 3),
        (Language::Sql, "-- a\nSELECT b, /* c\n d */ e\nFROM f;\n", 3),
    ];
    for (language, text, expected) in cases {
        let Reading::Read { counts, .. } = read(text, language, false) else { panic!("{text}") };
        assert_eq!(counts.lines, *expected, "{text}");
    }
}

#[test]
fn sql_of_every_dialect_is_taken_and_what_no_dialect_takes_is_not() {
    for text in include_str!("samples/sql_good.txt").split("\n\n").filter(|text| !text.trim().is_empty()) {
        let error = first_error(text, &Language::Sql, None);
        assert_eq!(error, None, "{text}");
    }
    for text in include_str!("samples/sql_bad.txt").split("\n\n").filter(|text| !text.trim().is_empty()) {
        assert!(first_error(text, &Language::Sql, None).is_some(), "{text}");
    }
}

#[test]
fn prose_is_graded_as_prose() {
    let good = "A queue group spreads the messages of a subject over its members: each message goes to one of them. \
                Add a worker and it takes its share at once, without any change to the others.\n\n\
                Use one when the work can be done anywhere. Where every worker must see every message, as for a cache \
                that is told to forget an entry, subscribe without a group.\n\n\
                - Messages are not kept: a worker that is away misses them.\n\
                - JetStream keeps them until they are acknowledged.\n";
    let cut = &good[..good.len() / 2];
    let quality = |text| evaluate(text, Kind::Prose).quality;
    assert!(quality(good) >= 0.95, "{}", quality(good));
    assert!(quality(cut) < quality(good) - 0.1);
    assert!(quality("Yes.") < quality(cut));
    assert_eq!(quality(" \n"), 0.0);
    let words = "word ".repeat(20_000);
    assert!(quality(&words) < quality(good) - 0.3);
    let evaluation = evaluate(good, Kind::Prose);
    assert!(evaluation.parses && evaluation.cyclomatic.is_none());
}

#[test]
fn markdown_is_prose_whose_blocks_must_parse() {
    let page = |code: &str| {
        format!("# How to add\n\nCall the function with both numbers:\n\n{code}\n\nIt returns their sum.\n")
    };
    let fine = evaluate(&page("```python\ndef add(a, b):\n    return a + b\n```"), Kind::Prose);
    assert!(fine.parses && fine.quality > 0.7);
    let broken = evaluate(&page("```python\ndef add(a, b:\n    return a + b\n```"), Kind::Prose);
    assert!(!broken.parses && broken.quality <= 0.3);
    for code in [
        "```python\ndef add(a, b:\n    ...\n```",
        "```\ndef add(a, b:\n```",
        "```kotlin\nfun (\n```",
        "  ```python\n  a = 1\n  ```",
    ] {
        assert!(evaluate(&page(code), Kind::Prose).parses, "{code}");
    }
}

#[derive(Debug, PartialEq)]
enum Read {
    Code,
    CodeWithError,
    Unread,
    Prose,
}

#[test]
fn a_models_answer_tells_whether_it_is_code() {
    use Language::{Elixir, Go, JavaScript, Python, Rust, Sql};
    let kotlin = Language::Other("kotlin".into());
    let cases: &[(&Language, &str, Read)] = &[
        (&Python, "sum(x * x for x in range(10))", Read::Code),
        (&Python, "```python\ndef a():\n    return 1\n```", Read::Code),
        (
            &Python,
            "Here it is:\n\n```python\ndef add(first, second):\n    return first + second\n\n\nprint(add(1, 2))\n```\n",
            Read::Code,
        ),
        (&Python, "```\ndef a(:\n    return 1\n```", Read::CodeWithError),
        (&Python, "def a(:\n    return 1\n", Read::CodeWithError),
        (&Elixir, "```rust\nfn main() { println!(\"hi\"); }\n```", Read::Code),
        (&Elixir, "Use a supervisor and restart it", Read::Prose),
        (&Elixir, "use a supervisor and let it crash", Read::Prose),
        (&Elixir, "A supervisor restarts its children. It does so by a strategy.", Read::Prose),
        (&Elixir, "defmodule A do\n  def b, do: :c\nend\n", Read::Code),
        (&Elixir, "Enum.map(list, &(&1 + 1))", Read::Code),
        (&Rust, "No, a `String` can't be borrowed for longer than it lives.", Read::Prose),
        (&Rust, "fn a() -> u8 {\n    1\n}\n", Read::Code),
        (&Rust, "fn a() -> u8 {\n    let x = \n}\n", Read::CodeWithError),
        (&Sql, "SELECT name FROM users WHERE active ORDER BY name;", Read::Code),
        (&Sql, "select name from users where active order by name", Read::Code),
        (&Sql, "Select the right index for the query and test it again", Read::Prose),
        (&Sql, "You should add an index, because the table is scanned.", Read::Prose),
        (&Go, "1. Install the tool with the package manager.\n2. Run it in the folder of the project.\n", Read::Prose),
        (&JavaScript, "{\"name\": \"orders\", \"port\": 8080}", Read::Unread),
        (&JavaScript, "yes", Read::Prose),
        (&kotlin, "fun main() {\n    val x = listOf(1, 2)\n    println(x.sum())\n}\n", Read::Unread),
        (&kotlin, "Kotlin compiles to bytecode and runs on the virtual machine.", Read::Prose),
        (
            &Go,
            "Two steps are needed, as a signal must reach every worker of the group before it stops.\n\n```go\nx := 1\n```\n\nAnd then:\n\n```go\ny := 2\n```\n",
            Read::Prose,
        ),
        (&Python, "", Read::Prose),
    ];
    for (asked, text, expected) in cases {
        let evaluation = evaluate(text, Kind::Unknown(asked));
        let code = evaluation.cyclomatic.is_some();
        let prose = evaluation == evaluate(text, Kind::Prose);
        let seen = match (code, evaluation.parses) {
            (true, true) => Read::Code,
            (true, false) => Read::CodeWithError,
            (false, _) if prose => Read::Prose,
            (false, _) => Read::Unread,
        };
        assert_eq!(seen, *expected, "{asked}: {text}\n{evaluation:?}");
    }
}

#[test]
fn a_language_without_a_grammar_is_judged_by_its_lines() {
    let kotlin = Language::Other("kotlin".into());
    let text = "data class Order(val id: Long, val total: Long)\n\nfun main() {\n    val orders = load()\n    for (order in orders) {\n        println(order.total)\n    }\n}\n\nfun load(): List<Order> {\n    return emptyList()\n}\n";
    let evaluation = evaluate(text, Kind::Code(&kotlin));
    assert!(evaluation.parses && evaluation.cyclomatic.is_none() && evaluation.lines == 12);
    assert!((0.75..=0.9).contains(&evaluation.quality), "{evaluation:?}");
    check_worse(&kotlin, text, &text[..text.len() / 2], "cut off");
    assert_eq!(first_error("fun (", &kotlin, None), None);
}

#[test]
fn json_and_toml_are_parsed_and_their_errors_placed_and_text_is_not() {
    let (json, toml) = (Language::Other("json".into()), Language::Other("toml".into()));
    for (language, good, damaged, place) in [
        (&json, "{\n  \"a\": [1, 2]\n}\n", "{\n  \"a\": [1, 2\n}\n", (3, 1)),
        (&toml, "[a]\nb = 1\n\n[c]\nd = [2]\n", "[a]\nb = 1\n\n[c]\nd = [2\n", (5, 1)),
        (&toml, "[a]\nb = \"ä\"\nc = 1\n", "[a]\nb = \"ä\"\nb = 1\n", (3, 1)),
    ] {
        let evaluation = evaluate(good, Kind::Code(language));
        assert!(evaluation.parses && evaluation.cyclomatic.is_none(), "{good}");
        assert_eq!(first_error(good, language, None), None);
        check_worse(language, good, damaged, "damaged");
        let error = first_error(damaged, language, None).unwrap();
        assert_eq!((error.line, error.what.contains(" line ")), (place.0, false), "{error}");
        assert!(error.column >= place.1, "{error}");
    }
    let makefile = "image: build\n\tdocker build [\n";
    let evaluation = evaluate(makefile, Kind::Text);
    assert!(evaluation.parses && evaluation.cyclomatic.is_none() && evaluation.lines == 2);
    assert!(evaluation.quality < evaluate(&makefile.repeat(10), Kind::Text).quality);
}

const DOCKERFILE: &str = "# syntax=docker/dockerfile:1\nARG GO=1.24\nFROM golang:${GO}-bookworm AS build\nWORKDIR /src\n\
    COPY go.mod go.sum ./\nRUN --mount=type=cache,target=/go/pkg/mod \\\n    # the modules alone change seldom\n    go mod download\n\
    COPY . .\nRUN <<EOF\nset -e\ngo vet ./...\ngo build -o /orders ./cmd/orders\nEOF\n\nFROM gcr.io/distroless/static:nonroot\n\
    COPY --from=build --chown=nonroot /orders /orders\nUSER nonroot\nEXPOSE 8080\nHEALTHCHECK CMD [\"/orders\", \"health\"]\n\
    ENTRYPOINT [\"/orders\"]\n";

const WORKFLOW: &str = "# checks\nname: ci\non:\n  push:\n    branches: [main, \"release/*\"]\nenv: {A: 1, B: two}\njobs:\n  build:\n\
    \x20   runs-on: ubuntu-24.04\n    steps:\n    - uses: actions/checkout@v5\n    - name: test\n      run: |\n        cargo fmt\n\
    \x20       cargo test\n      if: ${{ github.event_name == 'push' }}\n---\nx: &x\n  y: >-\n    folded\n    text\nz:\n  <<: *x\n";

#[test]
fn a_dockerfile_and_yaml_are_parsed_and_graded() {
    let (docker, yaml) = (Language::Other("dockerfile".into()), Language::Other("yaml".into()));
    for (language, good) in [(&docker, DOCKERFILE), (&yaml, WORKFLOW)] {
        assert_eq!(first_error(good, language, None), None, "{good}");
        let evaluation = code(good, language);
        assert!(evaluation.parses && evaluation.quality >= 0.85 && evaluation.cyclomatic.is_none(), "{evaluation:?}");
        check_worse(language, good, &lines(good, 5), "cut off");
        assert_eq!(code("\n", language).quality, 0.0);
    }
    let plain =
        "FROM golang\nCOPY . .\nRUN go build -o /orders ./cmd/orders || true\nUSER root\nENTRYPOINT [\"/orders\"]\n";
    check_worse(&docker, DOCKERFILE, plain, "unpinned, as root, unchecked");
}

#[test]
fn what_docker_or_a_reader_of_yaml_refuses_is_an_error() {
    let dockerfiles: &[&str] = &[
        "RUN a\nFROM b\n",
        "ARG A=1\n# only\n",
        "FROM a\nRUM b\n",
        "FROM a\nEXPOSE\n",
        "FROM a\nCOPY b\n",
        "FROM a AS\n",
        "FROM a\nCMD [\"b\", \"c\"\n",
        "FROM a\nENTRYPOINT ['b', 'c']\n",
        "FROM a\nCMD [b, c]\n",
        "FROM a\nENV A=\"b\nCMD c\n",
        "FROM a\nRUN <<EOF\nb\n",
    ];
    let yaml: &[&str] = &[
        "a: 1\n\tb: 2\n",
        "a: [1, 2\nb: 3\n",
        "a: \"x\nb: 3\n",
        "a:\n  - 1\n - 2\n",
        "a: b: c\n",
        "a: 1\nb: 2\n\"a\": 3\n",
        "a: {b: 1, b: 2}\n",
    ];
    for (name, cases) in [("Dockerfile", dockerfiles), ("a.yml", yaml)] {
        for text in cases {
            assert!(first_error(text, &Language::Go, Some(name)).is_some(), "{text}");
            let evaluation = code(text, &language_of(name, &Language::Go));
            assert!(!evaluation.parses && evaluation.quality <= 0.3, "{text}\n{evaluation:?}");
        }
    }
    for text in ["from a as b\nrun [ -f x ] && y\n", "FROM a\nRUN [\"b\"]\n", "FROM a@sha256:00\nHEALTHCHECK NONE\n"] {
        assert_eq!(first_error(text, &Language::Go, Some("deploy/orders.Dockerfile")), None, "{text}");
    }
    for text in ["a: 1\nb: {a: 1}\n", "- a: 1\n- a: 2\n", "a:\n  <<: *b\n  <<: *c\n"] {
        assert_eq!(first_error(text, &Language::Go, Some("a.yaml")), None, "{text}");
    }
}

#[test]
fn yaml_that_is_still_to_be_rendered_is_not_called_broken() {
    let chart =
        "```yaml\nspec:\n{{- if .Values.on }}\n  replicas: {{ .Values.count }}\n{{- end }}\n  image: app:1\n```\n";
    assert!(evaluate(chart, Kind::Unknown(&Language::Go)).parses);
    assert!(!evaluate(&chart.replace("{{", "["), Kind::Unknown(&Language::Go)).parses);
    let page = format!("Install the chart. Its deployment:\n\n{chart}\nThe values are told in the README.\n");
    assert!(evaluate(&page, Kind::Prose).parses);
}

#[test]
fn an_answer_in_one_fence_is_unfenced() {
    let fenced = unfence("Sure:\n\n```ts\nexport const answer: number = 42;\n```\n").unwrap();
    assert_eq!(fenced, Fenced { language: Some(Language::TypeScript), code: "export const answer: number = 42;\n" });
    assert_eq!(unfence("```\nx = 1\n"), Some(Fenced { language: None, code: "x = 1\n" }));
    assert_eq!(unfence("x = 1\n"), None);
    assert_eq!(unfence("```py\na\n```\n```py\nb\n```\n"), None);
    let explained = format!("{}\n```py\na = 1\n```\n", "Words that say much more than the code. ".repeat(5));
    assert_eq!(unfence(&explained), None);
}

#[test]
fn a_files_name_says_its_language() {
    let go = Language::Go;
    for (file, expected) in [
        ("cmd/main.go", "go"),
        ("Dockerfile", "dockerfile"),
        ("Dockerfile.worker", "dockerfile"),
        ("deploy/app.yaml", "yaml"),
        ("src/App.tsx", "typescript"),
        ("LICENSE", "go"),
        (".gitignore", "gitignore"),
    ] {
        assert_eq!(language_of(file, &go).as_str(), expected);
    }
    assert_eq!(first_error("build:\n\tgo build (", &go, Some("Makefile")), None);
    assert_eq!(first_error("const A = () => <p>{1}</p>;", &Language::TypeScript, Some("A.tsx")), None);
    assert_eq!(first_error("const a = <string>b;", &Language::TypeScript, Some("a.ts")), None);
}

#[test]
fn hostile_texts_are_graded_without_a_panic() {
    let long = |part: &str, count: usize| part.repeat(count);
    let texts = [
        long("(", 100_000),
        long("[", 20_000) + &long("]", 20_000),
        long("a", 1 << 20),
        long("$ab$ $b$ x ", 1_000),
        "\0fn a() {\0}\n".to_owned(),
        long("```\n", 2_001),
        long("\u{feff}\u{202e}é\u{1f600}\r\n\t ", 500),
        long("if a do CASE WHEN ", 1_000),
        long("#[test] x ", 1_000),
        long("(a b)* ", 1_000),
        long("<a>\"'`${#{", 500),
        "E'\\é".to_owned(),
    ];
    for text in &texts {
        for language in
            Language::known().chain(["kotlin", "dockerfile", "yaml"].map(|name| Language::Other(name.into())))
        {
            let evaluation = code(text, &language);
            assert!((0.0..=1.0).contains(&evaluation.quality), "{evaluation:?}");
        }
        evaluate(text, Kind::Unknown(&Language::Go));
        evaluate(text, Kind::Prose);
        unfence(text);
    }
}

#[test]
fn any_text_at_all_is_graded() {
    proptest::proptest!(proptest::prelude::ProptestConfig::with_cases(60), |(text in "(?s)[a-z(){}\\[\\]'\"`$;:,.=<>#@\\\\/*\n\t é\u{0}-]{0,200}")| {
        let others = ["dockerfile", "yaml"].map(|name| Language::Other(name.into()));
        for language in Language::known().chain(others) {
            let evaluation = evaluate(&text, Kind::Unknown(&language));
            assert!((0.0..=1.0).contains(&evaluation.quality));
            first_error(&text, &language, None);
        }
    });
}

#[test]
fn a_text_too_large_to_be_read_is_not_vouched_for() {
    let text = "x = 1\n".repeat(100_000);
    let evaluation = code(&text, &Language::Python);
    assert!(!evaluation.parses && evaluation.quality <= 0.3 && evaluation.cyclomatic.is_none());
    assert!(first_error(&text, &Language::Python, None).is_some());
}
