use std::time::Duration;

use super::*;

fn node(id: &str, state: State, group: Option<&str>, depends_on: &[&str]) -> Node {
    Node {
        id: id.to_owned(),
        label: format!("Does what {id} is for"),
        state,
        group: group.map(str::to_owned),
        depends_on: depends_on.iter().map(|d| (*d).to_owned()).collect(),
    }
}

fn shop() -> Graph {
    use State::{Cancelled, Completed, Failed, Ready, Running, Skipped, Waiting};
    let tasks = vec![
        node("analyze_requirements", Completed, None, &[]),
        node("identify_domains", Completed, None, &["analyze_requirements"]),
        node("services", Waiting, None, &["identify_domains"]),
        node("catalog", Completed, Some("services"), &[]),
        node("payments", Running, Some("services"), &["catalog"]),
        node("orders", Failed, Some("services"), &[]),
        node("search", Ready, Some("services"), &["catalog"]),
        node("plan_deployment", Waiting, None, &["services"]),
        node("load_test", Cancelled, None, &["orders"]),
        node("create_documentation", Skipped, None, &["plan_deployment", "analyze_requirements"]),
    ];
    Graph { title: "Design a shop".to_owned(), tasks }
}

/// Fifty tasks in ten stages.
fn large() -> Graph {
    let tasks = (0..50).map(|i: usize| {
        let state = match i {
            0..22 => State::Completed,
            22..27 => State::Running,
            27 => State::Failed,
            _ => State::Waiting,
        };
        let mut depends_on: Vec<String> = vec![];
        if i >= 5 {
            depends_on.push(format!("stage_{}", i - 5));
            if i.is_multiple_of(3) {
                depends_on.push(format!("stage_{}", (i / 5 - 1) * 5 + (i + 2) % 5));
            }
            if i.is_multiple_of(17) {
                depends_on.push(format!("stage_{}", i % 5));
            }
        }
        let label = format!("Transform partition {i} and write it to the warehouse of the region");
        Node { id: format!("stage_{i}"), label, state, group: None, depends_on }
    });
    Graph { title: "Nightly load of the warehouse".to_owned(), tasks: tasks.collect() }
}

fn run() -> Timeline {
    let ms = Duration::from_millis;
    let bar = |queued, started, ended: Option<u64>, end| Bar {
        queued: ms(queued),
        started: Some(ms(started)),
        ended: ended.map(ms),
        end,
        worker: Some("worker-1".to_owned()),
    };
    let row = |id: &str, bars| Row { id: id.to_owned(), label: format!("Does {id}"), bars };
    let waits = Bar { queued: ms(9_000), started: None, ended: None, end: End::Open, worker: None };
    Timeline {
        title: "Design a shop".to_owned(),
        length: ms(11_000),
        rows: vec![
            row("analyze_requirements", vec![bar(0, 20, Some(2_400), End::Completed)]),
            row("identify_domains", vec![bar(2_400, 2_420, Some(3_900), End::Completed)]),
            row(
                "payments",
                vec![
                    bar(3_900, 4_000, Some(5_000), End::Failed),
                    bar(6_000, 6_100, Some(7_100), End::Failed),
                    bar(9_100, 9_150, None, End::Open),
                ],
            ),
            row("catalog", vec![bar(3_900, 3_950, Some(8_200), End::Completed)]),
            row("search", vec![bar(3_900, 6_000, Some(6_020), End::Completed)]),
            row("orders", vec![bar(3_900, 8_200, Some(9_000), End::Cancelled)]),
            row("plan_deployment", vec![waits]),
            row("create_documentation", vec![]),
        ],
    }
}

/// Every tag of an SVG closes, and nothing but our own elements is in it.
fn elements(svg: &str) -> Vec<String> {
    let (mut open, mut all) = (vec![], vec![]);
    for piece in svg.split('<').skip(1) {
        let (tag, _) = piece.split_once('>').expect("a tag that ends");
        assert!(!tag.contains('<'));
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closed in the wrong place");
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap().to_owned();
        all.push(name.clone());
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    all
}

const HOSTILE: &[&str] = &[
    "</text></svg><script>alert(1)</script>",
    "\"]; click n0 href \"javascript:alert(1)\"\nend\nsubgraph x",
    "a\" onload=\"alert(1)",
    "\\\"; evil [label=\"x\\N",
    "&lt;b&gt; ]]> <!-- --> %%{init: {}}%% `markdown` **x** #quot;",
    "line\r\nbreak\0\u{1b}[31m\u{202e}drawkcab",
    "\0\t¡",
    "end",
    "",
];

fn hostile() -> Graph {
    let tasks = HOSTILE.iter().enumerate().map(|(i, text)| Node {
        id: format!("{i}{text}"),
        label: (*text).to_owned(),
        depends_on: if i > 0 { vec![format!("0{}", HOSTILE[0])] } else { vec![] },
        ..Node::default()
    });
    Graph { title: HOSTILE[0].to_owned(), tasks: tasks.collect() }
}

#[test]
fn an_svg_holds_every_task_and_every_edge() {
    let svg = svg(&shop()).unwrap();
    let all = elements(&svg);
    assert_eq!(all.iter().filter(|e| *e == "title").count(), 9, "a box for each task that is no group");
    for id in ["analyze_requirements", "catalog", "create_documentation"] {
        assert!(svg.contains(&format!(">{id}</text>")), "{id}");
    }
    // 1 to identify; 2 into the group, to those that wait for nothing in it; catalog to payments and search; load_test;
    // plan_deployment behind the last three of the group; 2 to create_documentation.
    assert_eq!(svg.matches("<path class=\"e").count(), 1 + 2 + 2 + 1 + 3 + 2);
    for state in State::ALL {
        assert!(svg.contains(&format!("class=\"n {}\"", state.as_str())), "{}", state.as_str());
    }
}

#[test]
fn nothing_in_a_name_gets_out_of_its_place() {
    let known = ["svg", "style", "defs", "marker", "path", "rect", "text", "g", "title", "circle", "line"];
    let svg = svg(&hostile()).unwrap();
    let timeline = timeline(&Timeline {
        title: HOSTILE[0].to_owned(),
        length: Duration::from_secs(1),
        rows: HOSTILE
            .iter()
            .map(|text| Row {
                id: (*text).to_owned(),
                label: (*text).to_owned(),
                bars: vec![Bar {
                    queued: Duration::ZERO,
                    started: Some(Duration::ZERO),
                    ended: None,
                    end: End::Open,
                    worker: Some((*text).to_owned()),
                }],
            })
            .collect(),
    })
    .unwrap();
    for picture in [&svg, &timeline] {
        assert!(elements(picture).iter().all(|e| known.contains(&e.as_str())), "{:?}", elements(picture));
        assert!(!picture.contains(" onload=\"alert"), "an attribute of its own");
        assert!(!picture.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'), "a control character");
    }
    let mermaid = mermaid(&hostile()).unwrap();
    for line in mermaid.lines().skip(1) {
        let words = line.trim_start();
        let own = words.starts_with('n') || words.starts_with("classDef waiting ") || words.starts_with("class n");
        assert!(own, "a line of its own: {line}");
        assert_eq!(line.matches('"').count() % 2, 0);
        assert!(line.matches('"').count() <= 2, "{line}");
    }
    let dot = dot(&hostile()).unwrap();
    for line in dot.lines().filter(|line| line.contains("tooltip")) {
        // Without what is escaped, the quotes are ours: of label, two colours and the tooltip.
        let plain = line.replace("\\\\", "").replace("\\\"", "");
        assert_eq!(plain.matches('"').count(), 8, "{line}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_makes_a_whole_picture(id in ".{0,60}", label in ".{0,60}", group in ".{0,20}") {
        let child = Node { id: format!("c{id}"), label: label.clone(), group: Some(format!("g{group}")), ..Node::default() };
        let parent = Node { id: format!("g{group}"), label, ..Node::default() };
        let graph = Graph { title: id, tasks: vec![parent, child] };
        assert_eq!(elements(&svg(&graph).unwrap()).iter().filter(|e| *e == "title").count(), 1);
        let mermaid = mermaid(&graph).unwrap();
        assert_eq!((mermaid.lines().count(), mermaid.matches('"').count()), (6, 4), "{mermaid}");
        let dot = dot(&graph).unwrap();
        assert_eq!(dot.lines().count(), 9, "{dot}");
    }
}

#[test]
fn groups_are_nested_in_mermaid_and_dot() {
    let mermaid = mermaid(&shop()).unwrap();
    assert!(mermaid.contains("    subgraph n2[\"services\"]\n        n3[\"✓ catalog"), "{mermaid}");
    assert!(mermaid.contains("    n1 --> n2\n"), "an edge to the group itself");
    assert!(mermaid.contains("class n0,n1,n3 completed"), "{mermaid}");
    let dot = dot(&shop()).unwrap();
    assert!(
        dot.contains("subgraph cluster_2 {") && dot.contains("lhead=cluster_2") && dot.contains("ltail=cluster_2"),
        "{dot}"
    );
}

#[test]
fn retries_and_waiting_are_seen_on_a_timeline() {
    let svg = timeline(&run()).unwrap();
    elements(&svg);
    assert_eq!(svg.matches("class=\"bar failed\"").count(), 2);
    assert_eq!(svg.matches("class=\"bar running\"").count(), 1, "the third try is still at it");
    assert_eq!(svg.matches("<line class=\"r\"").count(), 2, "two pauses");
    assert!(svg.contains("· 3 tries"));
    assert!(svg.contains(">waits</text>"));
    assert!(svg.contains(">10 s</text>") && svg.contains(">11 s</text>"), "the axis and the whole");
}

#[test]
fn what_is_too_large_or_unknown_is_said() {
    let many = Graph {
        tasks: (0..1_001).map(|i| Node { id: i.to_string(), ..Node::default() }).collect(),
        ..Graph::default()
    };
    assert_eq!(svg(&many).unwrap_err().to_string(), "1001 tasks are too many to draw; at most 1000 are");
    let lost = Graph { tasks: vec![node("a", State::Ready, None, &["b"])], ..Graph::default() };
    let error = Error::Unknown { task: "a".to_owned(), missing: "b".to_owned() };
    assert_eq!([mermaid(&lost), dot(&lost), svg(&lost)], [Err(error.clone()), Err(error.clone()), Err(error)]);
}

#[test]
fn the_largest_graph_is_drawn() {
    let task = |i: usize| Node {
        id: format!("t{i}"),
        depends_on: (1..=5).filter(|k| k * k <= i).map(|k| format!("t{}", i - k * k)).collect(),
        ..Node::default()
    };
    let graph = Graph { tasks: (0..1_000).map(task).collect(), ..Graph::default() };
    elements(&svg(&graph).unwrap());
    elements(&svg(&Graph::default()).unwrap());
    elements(&timeline(&Timeline::default()).unwrap());
}

#[test]
fn a_long_text_is_cut() {
    assert_eq!(text::fit("short", 22.0), "short");
    let cut = text::fit("a_name_that_is_much_longer_than_its_box", 22.0);
    assert!(cut.ends_with('…') && text::width_of(&cut) <= 22.5, "{cut}");
    assert_eq!(text::two_lines("one two three four", 9.0), ["one two", "three four"]);
}

/// With TANDEM_PICTURES=folder they are written there, for a look at them.
#[test]
fn every_picture_is_whole() {
    let folder = std::env::vars_os().find(|(name, _)| name == "TANDEM_PICTURES").map(|(_, folder)| folder);
    let write = |name: String, text: String| {
        if let Some(folder) = &folder {
            std::fs::write(std::path::Path::new(folder).join(name), text).unwrap();
        }
    };
    for (name, graph) in [("shop", shop()), ("large", large()), ("hostile", hostile())] {
        let picture = svg(&graph).unwrap();
        let boxes = graph.tasks.iter().filter(|t| !graph.tasks.iter().any(|c| c.group.as_ref() == Some(&t.id))).count();
        assert_eq!(elements(&picture).iter().filter(|e| *e == "title").count(), boxes, "{name}");
        write(format!("{name}.svg"), picture);
        write(format!("{name}.dot"), dot(&graph).unwrap());
        write(format!("{name}.mmd"), mermaid(&graph).unwrap());
    }
    write("timeline.svg".to_owned(), timeline(&run()).unwrap());
}
