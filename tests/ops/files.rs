//! The files for Grafana, Prometheus and systemd name only what there is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tandem::telemetry::metrics::{Kind, TABLE};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every word of a text that looks like a figure of ours.
fn named(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("tandem_"))
        .map(str::to_owned)
        .collect()
}

/// As a scrape has them: a histogram is three.
fn scraped() -> BTreeSet<String> {
    let names = |row: &tandem::telemetry::metrics::Metric| match row.kind {
        Kind::Histogram => ["_bucket", "_sum", "_count"].map(|end| format!("{}{end}", row.name)).to_vec(),
        _ => vec![row.name.to_owned()],
    };
    TABLE.iter().flat_map(names).collect()
}

#[test]
fn the_dashboard_shows_figures_that_there_are_and_all_that_alarm() {
    let dashboard: Value = serde_json::from_str(&read("ops/grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut shown = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels have one id");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty() && panel["title"].is_string() && panel["gridPos"]["w"].is_u64(), "{panel}");
        for target in targets {
            let found = named(target["expr"].as_str().unwrap());
            assert!(!found.is_empty(), "{target} shows nothing of ours");
            shown.extend(found);
        }
    }
    let there = scraped();
    let unknown: Vec<_> = shown.difference(&there).collect();
    assert!(unknown.is_empty(), "{unknown:?} are not in the table of metrics");
    let missing: Vec<_> = named(&read("ops/alerts.yml")).difference(&shown).cloned().collect();
    assert!(missing.is_empty(), "{missing:?} alarm and are not shown");
}

#[test]
fn each_alert_is_on_a_figure_that_there_is_and_says_what_to_do() {
    let text = read("ops/alerts.yml");
    let rules: Vec<&str> = text.split("\n      - alert: ").skip(1).collect();
    assert!(rules.len() >= 6, "{}", rules.len());
    for rule in rules {
        let expression = rule.split("\n        expr: ").nth(1).unwrap_or_else(|| panic!("no expression: {rule}"));
        let expression = expression.lines().next().unwrap();
        let found = named(expression);
        assert!(!found.is_empty() || expression.starts_with("up{"), "{rule}");
        assert!(found.is_subset(&scraped()), "{found:?} in {rule}");
        assert!(rule.contains("severity: ") && rule.contains("summary: ") && rule.contains("description: "), "{rule}");
    }
}

#[test]
fn the_unit_is_one_that_systemd_takes_and_its_patience_covers_the_grace() {
    let text = read("ops/tandem.service");
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::trim);
    let grace: u64 =
        value("ExecStart").unwrap().split("--grace ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let patience: u64 = value("TimeoutStopSec").unwrap().parse().unwrap();
    assert!(patience >= grace + 10, "systemd kills after {patience} s what may take {grace} s and its last words");
    let Ok(found) = Command::new("systemd-analyze").arg("--version").output() else {
        eprintln!("systemd-analyze is not installed; the unit was read only");
        return;
    };
    assert!(found.status.success());
    // The program it starts must be there for the check.
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("tandem.service");
    let binary = env!("CARGO_BIN_EXE_tandem");
    std::fs::write(&unit, text.replace("/usr/local/bin/tandem", binary)).unwrap();
    let checked = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("tandem.service")).collect();
    assert!(checked.status.success() && ours.is_empty(), "{said}");
}
