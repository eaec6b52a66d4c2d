//! How far the rules can be trusted: what they answer of labelled tasks, and how much of that is right, at each threshold
//! of words that nothing accounts for. The columns of a file of labels are in `tests/data/README.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::agent::{by_templates, language_of, language_said};
use super::company::Company;
use super::decompose;
use super::library::Library;
use crate::domain::{Answer, Complexity, Context, Goal, Language, Share, TaskType, Timestamp};

/// A task and what its author expects.
#[derive(Debug, Clone, PartialEq)]
pub struct Labelled {
    pub task: String,
    /// The request's own field.
    given: Option<Language>,
    /// Any of these; empty where nothing names one.
    languages: Vec<Language>,
    /// One entry for each thing asked for; any of its types will do. Empty: no boilerplate is an answer.
    types: Vec<Vec<TaskType>>,
    /// What the output must be named after, any of these; empty where the task names nothing.
    names: Vec<String>,
    must: Vec<Must>,
}

#[derive(Debug, Clone, PartialEq)]
enum Must {
    /// This text stands in the output.
    Hold(String),
    /// A line of the output has the name and a word for the type, and says unique where that was asked for.
    Field { name: String, r#type: String, unique: bool },
}

/// A line that is no label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct LabelError {
    pub line: usize,
    pub problem: String,
}

/// Reads labels: seven columns a line, or `{"lang", "task"}` for a task that rules must decline.
pub fn read_labels(text: &str) -> Result<Vec<Labelled>, LabelError> {
    let lines = text.lines().enumerate().filter(|(_, l)| !l.starts_with('#') && !l.trim().is_empty());
    lines.map(|(i, line)| read_label(line).map_err(|problem| LabelError { line: i + 1, problem })).collect()
}

fn read_label(line: &str) -> Result<Labelled, String> {
    if line.starts_with('{') {
        #[derive(Deserialize)]
        struct Declined {
            lang: Option<String>,
            task: String,
        }
        let Declined { lang, task } = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let given = lang.map(Language::from);
        return Ok(Labelled { task, given, languages: vec![], types: vec![], names: vec![], must: vec![] });
    }
    let [given, language, types, outcome, name, must, task] = line.split('\t').collect::<Vec<_>>()[..] else {
        return Err("seven columns are expected: given, language, types, outcome, name, must, task".to_owned());
    };
    let said = |column: &str| Some(column.to_owned()).filter(|c| c != "-");
    let types = match outcome {
        "decline" => vec![],
        "rules" => types
            .split(',')
            .map(|any| {
                any.split('|').map(|t| t.parse::<TaskType>().map_err(|_| format!("no task type {t:?}"))).collect()
            })
            .collect::<Result<Vec<Vec<_>>, _>>()?,
        other => return Err(format!("outcome is `rules` or `decline`, not {other:?}")),
    };
    let must = said(must).iter().flat_map(|m| m.split(';')).map(read_must).collect::<Result<_, _>>()?;
    Ok(Labelled {
        task: task.to_owned(),
        given: said(given).map(Language::from),
        languages: said(language).iter().flat_map(|l| l.split('|')).map(|l| Language::from(l.to_owned())).collect(),
        types,
        names: said(name).iter().flat_map(|n| n.split('|')).map(plain).collect(),
        must,
    })
}

fn read_must(option: &str) -> Result<Must, String> {
    let (key, value) = option.split_once('=').ok_or_else(|| format!("an option is KEY=VALUE, not {option:?}"))?;
    match (key, value.split(' ').collect::<Vec<_>>().as_slice()) {
        ("field", [name, r#type, marks @ ..]) => {
            Ok(Must::Field { name: plain(name), r#type: (*r#type).to_owned(), unique: marks.contains(&"unique") })
        }
        ("subject" | "queue" | "port" | "path", _) => Ok(Must::Hold(value.to_owned())),
        _ => Err(format!("no option is written {option:?}")),
    }
}

/// How one labelled task came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Answered with the right type, language, name and options.
    Right,
    /// Answered with the right type and language; a name or an option is missing.
    Incomplete,
    /// Answered as another type or in another language.
    Confused,
    /// Boilerplate for a task that no boilerplate answers.
    Overreached,
    /// Declined, as it should be.
    RightlyDeclined,
    /// Declined, though boilerplate is wanted.
    Missed,
    /// Declined, and no template of that type and language exists.
    NoTemplate,
}

/// One labelled task, measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    pub task: String,
    pub verdict: Verdict,
    pub wanted: Vec<TaskType>,
    /// Of the answer's parts; empty where the rules declined.
    pub got: Vec<TaskType>,
    pub templates: Vec<String>,
    /// What is missing, or why the rules declined.
    pub why: String,
}

/// How the rules do at one threshold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AtThreshold {
    pub max_unknown_share: f64,
    /// Of what the rules answered: what is of the right type and language.
    pub precision: Share,
    /// Of the tasks that want boilerplate: those answered with the right type and language.
    pub recall: Share,
    /// The same without the tasks for which there is no template at all.
    pub recall_of_existing: Share,
    /// Of the tasks that want boilerplate: those that have their name and every option too.
    pub complete: Share,
    /// Of the tasks that no boilerplate answers: those answered.
    pub overreached: Share,
}

/// Measures every task at one threshold, with these templates alone. `leaving_out`: counts what leaves phrases out, too, as
/// a worker without a model answers.
pub fn measure(
    library: &Library,
    labelled: &[Labelled],
    default: &Language,
    max_unknown_share: f64,
    leaving_out: bool,
) -> Vec<Measured> {
    labelled.iter().map(|label| measure_one(library, label, default, max_unknown_share, leaving_out)).collect()
}

fn measure_one(
    library: &Library,
    label: &Labelled,
    default: &Language,
    max_unknown_share: f64,
    leaving_out: bool,
) -> Measured {
    let said = label.given.as_ref().map(|given| language_said(&label.task, given).unwrap_or_else(|| given.clone()));
    let language = said.or_else(|| language_of(&label.task)).unwrap_or_else(|| default.clone());
    let goal = |task: &str| Goal {
        description: task.to_owned(),
        language: language.clone(),
        complexity: Complexity::default(),
        acceptance_criteria: vec![],
        context: Context::default(),
        tags: vec![],
    };
    let dag = decompose::by_rules(&label.task);
    let company = Company::of(&dag);
    let several = dag.leaves().count() > 1;
    let answers: Result<Vec<(String, Answer)>, String> = dag
        .leaves()
        .map(|part| {
            let answer = by_templates(
                library,
                &goal(&part.description),
                &company.of_part(&part.id),
                max_unknown_share,
                Timestamp(0),
            )
            .or_else(|undone| match undone.incomplete {
                Some(answer) if leaving_out => Ok(*answer),
                _ => Err(undone.why),
            })
            .map_err(|why| match several {
                true => format!("{why} (in the part {:?})", part.description),
                false => why.to_string(),
            })?;
            Ok((part.description.clone(), answer))
        })
        .collect();
    let wanted: Vec<TaskType> = label.types.iter().filter_map(|any| any.first().copied()).collect();
    let measured =
        |verdict, got, templates, why| Measured { task: label.task.clone(), verdict, wanted, got, templates, why };
    let answers = match answers {
        Ok(answers) => answers,
        Err(declined) => {
            let verdict = match label.types.as_slice() {
                [] => Verdict::RightlyDeclined,
                types if !types.iter().all(|any| exists(library, any, &label.languages, &language)) => {
                    Verdict::NoTemplate
                }
                _ => Verdict::Missed,
            };
            return measured(verdict, vec![], vec![], declined);
        }
    };
    let got: Vec<TaskType> = answers.iter().map(|(_, a)| a.task_type).collect();
    let templates: Vec<String> =
        answers.iter().filter_map(|(_, a)| a.template.as_ref()).map(ToString::to_string).collect();
    let (verdict, why) = judge(library, label, &language, &answers);
    measured(verdict, got, templates, why)
}

fn judge(library: &Library, label: &Labelled, language: &Language, answers: &[(String, Answer)]) -> (Verdict, String) {
    if label.types.is_empty() {
        return (Verdict::Overreached, String::new());
    }
    if !label.languages.is_empty() && !label.languages.contains(language) {
        return (Verdict::Confused, format!("in {language}"));
    }
    // The type is that of the walk, or that of the template where a generic one answered.
    let types_of = |answer: &Answer| {
        let own = answer.template.as_ref().and_then(|id| library.get(id)).map(|t| t.task_type);
        [Some(answer.task_type), own]
    };
    let mut open: Vec<_> = answers.iter().map(|(_, a)| types_of(a)).collect();
    let all_wanted = label.types.iter().all(|any| {
        let at = open.iter().position(|types| types.iter().flatten().any(|t| any.contains(t)));
        at.map(|at| open.swap_remove(at)).is_some()
    });
    if !all_wanted || !open.is_empty() {
        return (Verdict::Confused, format!("{} parts for {}", answers.len(), label.types.len()));
    }
    let missing = missing(label, answers);
    if missing.is_empty() {
        (Verdict::Right, missing)
    } else {
        (Verdict::Incomplete, format!("missing: {missing} (in {})", files(answers)))
    }
}

fn files(answers: &[(String, Answer)]) -> String {
    answers.iter().filter_map(|(_, a)| a.file.as_deref()).collect::<Vec<_>>().join(", ")
}

/// The name and the options that no output has. A template that only quotes the task has none of them.
fn missing(label: &Labelled, answers: &[(String, Answer)]) -> String {
    let texts: Vec<String> = answers
        .iter()
        .map(|(task, a)| format!("{}\n{}", a.file.as_deref().unwrap_or_default(), a.text).replace(task.as_str(), ""))
        .collect();
    let unquoted = |text: &String, task: &str| plain(text).replace(&plain(task), "");
    let named = label.names.is_empty()
        || texts.iter().zip(answers).any(|(text, (task, _))| {
            let text = unquoted(text, task);
            label.names.iter().any(|name| text.contains(name.as_str()))
        });
    let holds = |must: &&Must| match must {
        Must::Hold(value) => texts.iter().any(|text| text.contains(value.as_str())),
        Must::Field { name, r#type, unique } => {
            let lines: Vec<String> = texts.iter().flat_map(|t| t.lines()).map(str::to_lowercase).collect();
            let about = || lines.iter().filter(|line| plain(line).contains(name.as_str()));
            about().any(|line| words_for(r#type).iter().any(|word| line.contains(word)))
                && (!unique || about().any(|line| line.contains("unique") || line.contains("taken")))
        }
    };
    let options = label.must.iter().filter(|m| !holds(m)).map(|m| match m {
        Must::Hold(value) => value.clone(),
        Must::Field { name, r#type, unique } => format!("{name} {type}{}", if *unique { " unique" } else { "" }),
    });
    (!named).then(|| label.names.join(" or ")).into_iter().chain(options).collect::<Vec<_>>().join(", ")
}

/// How the seven languages and their libraries write a type, however the task writes it: "String", "varchar(50)".
fn words_for(r#type: &str) -> &'static [&'static str] {
    let plain = r#type.split('(').next().unwrap_or_default().to_lowercase();
    match plain.as_str() {
        "text" | "string" | "str" | "varchar" | "char" => &["text", "str", "char"],
        "integer" | "bigint" | "int" | "i64" | "i32" | "smallint" => &["int", "number", "i64", "i32", "long"],
        "decimal" | "numeric" | "money" | "number" => &["decimal", "numeric", "number", "money"],
        "boolean" | "bool" => &["bool"],
        "timestamp" | "timestamptz" | "datetime" => &["timestamp", "date", "time"],
        "uuid" => &["uuid"],
        "json" | "jsonb" => &["json", "map", "dict", "record", "value"],
        "date" => &["date"],
        "float" | "f64" | "float64" | "double" | "real" => &["float", "double", "real", "number", "f64"],
        _ => &[],
    }
}

fn exists(library: &Library, types: &[TaskType], languages: &[Language], resolved: &Language) -> bool {
    let speaks = |own: &Option<Language>| {
        own.as_ref().is_none_or(|own| if languages.is_empty() { own == resolved } else { languages.contains(own) })
    };
    library.iter().any(|t| types.contains(&t.task_type) && speaks(&t.language))
}

/// Letters and digits only, in lower case: `OrderItem`, `order_item` and "order item" are one.
fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The figures of one threshold.
pub fn summarize(measured: &[Measured], max_unknown_share: f64) -> AtThreshold {
    let count = |verdicts: &[Verdict]| measured.iter().filter(|m| verdicts.contains(&m.verdict)).count();
    let typed = count(&[Verdict::Right, Verdict::Incomplete]);
    let answered = typed + count(&[Verdict::Confused, Verdict::Overreached]);
    let declines = count(&[Verdict::RightlyDeclined, Verdict::Overreached]);
    let wanted = measured.len() - declines;
    AtThreshold {
        max_unknown_share,
        precision: Share::new(typed, answered),
        recall: Share::new(typed, wanted),
        recall_of_existing: Share::new(typed, wanted - count(&[Verdict::NoTemplate])),
        complete: Share::new(count(&[Verdict::Right]), wanted),
        overreached: Share::new(count(&[Verdict::Overreached]), declines),
    }
}

/// How often each type was taken for each other one, the most frequent first. Only tasks that ask for one thing.
pub fn confusion(measured: &[Measured]) -> Vec<(TaskType, TaskType, usize)> {
    let mut pairs: BTreeMap<(TaskType, TaskType), usize> = BTreeMap::new();
    for m in measured.iter().filter(|m| m.verdict == Verdict::Confused) {
        if let ([wanted], [got]) = (m.wanted.as_slice(), m.got.as_slice()) {
            *pairs.entry((*wanted, *got)).or_default() += 1;
        }
    }
    let mut pairs: Vec<_> = pairs.into_iter().map(|((wanted, got), n)| (wanted, got, n)).collect();
    pairs.sort_by_key(|(.., n)| std::cmp::Reverse(*n));
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_label_is_named_with_its_line() {
        let good = "-\tgo\tdatabase|general\trules\torder\tport=1;field=a text unique\ttask";
        assert_eq!(read_labels(&format!("# heading\n{good}")).map(|l| l.len()), Ok(1));
        for bad in [
            "a\tb",
            "-\tgo\tdatabas\trules\t-\t-\tt",
            "-\tgo\tdatabase\tmaybe\t-\t-\tt",
            "-\tgo\tdatabase\trules\t-\tx\tt",
        ] {
            assert_eq!(read_labels(&format!("# heading\n{bad}")).map_err(|e| e.line), Err(2), "{bad}");
        }
    }
}
