use tandem::coordinator::graph::Options;
use tandem::coordinator::library::Library;
use tandem::coordinator::select::{Knowledge, select};
use tandem::domain::{Language, Timestamp};
#[test]
fn adhoc() {
    let (library, errors) = Library::load(None);
    println!("errors {errors:?}");
    let figures = Default::default();
    let options = Options { explore: 0.0, near: 0.05 };
    let k = Knowledge {
        library: &library,
        figures: &figures,
        options: &options,
        max_unknown_share: 0.15,
        now: Timestamp(0),
    };
    let mut hit = 0;
    let mut n = 0;
    for line in std::fs::read_to_string("/work/shared/data/algorithmic_prompts_dev.jsonl").unwrap().lines() {
        let v: serde_json::Value = serde_json::from_str(line).unwrap();
        let lang = Language::from(v["lang"].as_str().unwrap().to_owned());
        let s = select(v["task"].as_str().unwrap(), &lang, |_| false, &k, &mut rand::rng());
        n += 1;
        if let Some(c) = s.chosen {
            hit += 1;
            println!("ALG {} <- {} {:?}", c.template.id, v["task"], c.reading.unknown);
        }
    }
    println!("algorithmic autonomous {hit}/{n}");
    let tasks = std::fs::read_to_string("/tmp/adhoc/tasks.txt").unwrap();
    let (mut ok, mut all) = (0, 0);
    for line in tasks.lines().filter(|l| !l.is_empty()) {
        let (lang, task) = line.split_once('\t').unwrap();
        let language = Language::from(lang.to_owned());
        let t = std::time::Instant::now();
        let s = select(task, &language, |_| false, &k, &mut rand::rng());
        let us = t.elapsed().as_micros();
        all += 1;
        match s.chosen {
            Some(c) => {
                ok += 1;
                println!(
                    "{us}us {lang} {} <- {task} | name={} unk={:?}",
                    c.template.id,
                    serde_json::to_value(&c.reading.filled).unwrap()["name"]["words"],
                    c.reading.unknown
                )
            }
            None => println!("{us}us {lang} DECLINED {:?} <- {task}", s.declined.map(|d| d.to_string())),
        }
    }
    println!("{ok}/{all}");
}
