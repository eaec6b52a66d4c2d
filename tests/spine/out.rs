//! `tandem request --out`: an answer's files where they belong.

use std::path::Path;

use crate::nats::Nats;
use crate::process::{output, tandem};
use crate::worker::Place;

const TASK: &str = "Create a repository for orders with customer_id integer, and a REST endpoint that lists them";

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

/// In a folder of its own, which `--out shop` is below.
async fn request(nats: &Nats, folder: &Path, more: &[&str]) -> Ran {
    let arguments = [&["request", TASK, "--language", "rust", "--out", "shop"], more].concat();
    let ended = output(tandem(folder, &[("NATS_URL", nats.server.url())], &arguments)).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: ended.status.code(), out: text(ended.stdout), err: text(ended.stderr) }
}

#[tokio::test]
async fn files_are_written_where_they_belong_and_never_over_others_unasked() {
    let nats = Nats::start().await;
    let _worker = Place::new().worker(&nats).await;
    let folder = tempfile::tempdir().unwrap();
    let shop = folder.path().canonicalize().unwrap().join("shop");
    let read = |file: &str| std::fs::read_to_string(shop.join(file)).unwrap();

    let first = request(&nats, folder.path(), &[]).await;
    assert_eq!(first.code, Some(0), "{}", first.err);
    let mut printed: Vec<&str> = first.out.lines().collect();
    printed.sort_unstable();
    let files = ["Cargo.toml", "src/api/orders.rs", "src/db/orders.rs", "src/lib.rs"];
    assert_eq!(printed, files.map(|file| shop.join(file).display().to_string()), "{}", first.err);
    assert!(read("src/db/orders.rs").contains("customer_id") && read("src/api/orders.rs").contains("customer_id"));
    assert!(read("Cargo.toml").contains("sqlx") && read("src/lib.rs").contains("pub mod orders;"));

    // One file is there, another is not: neither is written.
    std::fs::write(shop.join("src/api/orders.rs"), "mine").unwrap();
    std::fs::write(shop.join("Cargo.toml"), "# mine\n").unwrap();
    std::fs::remove_file(shop.join("src/db/orders.rs")).unwrap();
    let refused = request(&nats, folder.path(), &[]).await;
    assert_eq!(refused.code, Some(2), "{}", refused.err);
    assert!(refused.err.contains("src/api/orders.rs is there already"), "{}", refused.err);
    assert_eq!((read("src/api/orders.rs"), refused.out.as_str()), ("mine".to_owned(), ""));
    assert!(!shop.join("src/db/orders.rs").exists(), "nothing is written where one file can't be");

    let forced = request(&nats, folder.path(), &["--force"]).await;
    assert_eq!(forced.code, Some(0), "{}", forced.err);
    assert!(read("src/api/orders.rs").contains("customer_id") && read("src/db/orders.rs").contains("customer_id"));
    assert_eq!(read("Cargo.toml"), "# mine\n", "a manifest that is there is kept");
    assert!(forced.err.contains("kept Cargo.toml") && !forced.out.contains("Cargo.toml"), "{}", forced.err);
}
