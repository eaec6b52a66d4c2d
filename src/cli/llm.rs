//! `tandem llm`

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use super::client::{self, Answered, connect, parse_tenant, show, spinner};
use super::{Ended, Error, PIPE_CLOSED, spending};
use crate::bus::wire::{ModelBatch, ModelOptions, ModelPipeline, ModelQuery, Progress, State};
use crate::config::Variables;
use crate::domain::{RequestId, Tenant};
use crate::pipeline::{ModelAnswer, ModelAnswers, ModelSteps};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Query(QueryArguments),
    Parallel(ParallelArguments),
    Pipeline(PipelineArguments),
    /// What this tenant's model calls came to: successes, failures, cost, time; by provider and model.
    Stats(client::Common),
    /// Begin the statistics anew. Prints what they were. Budgets still count what was spent.
    Reset(client::Common),
    /// How the budgets stand that bound this tenant.
    Budget(client::Common),
}

/// Ask a model. The answer goes to standard output, what is known of it to standard error.
///
///   tandem llm query "Why is the sky blue?" --stream
///   tandem llm query "Three colours" --schema colours.json --model openai/gpt-5-mini
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct QueryArguments {
    prompt: String,
    #[command(flatten)]
    options: Options,
    /// Print the text as it comes.
    #[arg(long)]
    stream: bool,
    #[command(flatten)]
    common: Common,
}

/// Ask models several questions at a time. Failures stand beside successes.
///
///   tandem llm parallel "Why is the sky blue?" "Why is grass green?" --max-concurrent 2
///   tandem llm parallel --file questions.txt --json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ParallelArguments {
    #[command(flatten)]
    questions: Questions,
    /// How many run at a time; without it as the worker is configured.
    #[arg(long)]
    max_concurrent: Option<usize>,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    common: Common,
}

/// Ask models questions after each other, each with the answer before it. The first failure ends it.
///
///   tandem llm pipeline "Name a fruit." "Write a haiku about it." --json > run.json
///   tandem llm pipeline "Name a fruit." "Write a haiku about it." --resume run.json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct PipelineArguments {
    #[command(flatten)]
    questions: Questions,
    /// Ask each question by itself.
    #[arg(long)]
    no_context: bool,
    /// What an earlier run of the same steps printed with --json: what it had done is not asked, and not paid, again.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Questions {
    prompts: Vec<String>,
    /// One question a line; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Options {
    /// What the model is told before everything else.
    #[arg(long)]
    system: Option<String>,
    /// One model of the worker's route, as provider/model.
    #[arg(long)]
    model: Option<String>,
    /// A file with a JSON Schema that the answer must fit.
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// The most tokens that an answer may have.
    #[arg(long)]
    max_tokens: Option<u32>,
    #[arg(long)]
    temperature: Option<f64>,
    /// Attempts on one model after the first; 0: one attempt.
    #[arg(long)]
    max_retries: Option<u32>,
    /// The longest first pause between two attempts, in milliseconds.
    #[arg(long)]
    backoff_ms: Option<u64>,
    /// What one question may cost, in US dollars.
    #[arg(long, value_name = "USD")]
    max_cost_usd: Option<f64>,
}

#[derive(Debug, Args)]
struct Common {
    /// Print the worker's answer as JSON.
    #[arg(long)]
    json: bool,
    /// Act as this tenant.
    #[arg(long, value_parser = parse_tenant, default_value = "default")]
    tenant: Tenant,
    /// How long all of it may take, in milliseconds. Without it as the worker is configured, and at most ten minutes.
    #[arg(long)]
    timeout_ms: Option<u64>,
}

/// What is given to a worker beyond the time that it has.
const GRACE: Duration = Duration::from_secs(5);
/// For an answer, where nothing is said.
const WAIT: Duration = Duration::from_secs(600);

pub(super) async fn run(command: Command, variables: &Variables) -> Result<Ended, Error> {
    match command {
        Command::Query(arguments) => query(arguments, variables).await,
        Command::Parallel(arguments) => parallel(arguments, variables).await,
        Command::Pipeline(arguments) => pipeline(arguments, variables).await,
        Command::Stats(common) => spending::stats(&common, "llm.stats", variables).await,
        Command::Reset(common) => spending::stats(&common, "llm.reset", variables).await,
        Command::Budget(common) => spending::budget(&common, variables).await,
    }
}

async fn query(arguments: QueryArguments, variables: &Variables) -> Result<Ended, Error> {
    let QueryArguments { prompt, options, stream, common } = arguments;
    let mut asked = options.query(prompt)?;
    let client = connect(variables).await?;
    let streams = stream && !common.json;
    // Of the last attempt.
    let mut printed = String::new();
    let said = if streams {
        let id = RequestId::generate();
        asked.options = Some(ModelOptions {
            stream: Some(id.to_string()),
            timeout_ms: common.timeout_ms,
            ..asked.options.unwrap_or_default()
        });
        let mut attempt = 1;
        let print = |progress: Progress| {
            if let (State::Writing, Some(text)) = (progress.state, &progress.text) {
                if progress.attempt != Some(attempt) {
                    attempt = progress.attempt.unwrap_or(attempt);
                    printed.clear();
                    eprintln!("\nthe answer broke off and begins anew:");
                }
                let mut out = std::io::stdout();
                if write!(out, "{text}").and_then(|()| out.flush()).is_err() {
                    std::process::exit(PIPE_CLOSED);
                }
                printed.push_str(text);
            }
        };
        client.ask_told("llm.query", &common.tenant, &asked, common.wait(), &id, print).await?
    } else {
        asked.options = Some(ModelOptions { timeout_ms: common.timeout_ms, ..asked.options.unwrap_or_default() });
        let waiting = spinner("waiting for the answer");
        let said = client.ask("llm.query", &common.tenant, &asked, common.wait()).await;
        waiting.finish_and_clear();
        said?
    };
    let answered: Answered<ModelAnswer> = show(&said, common.json)?;
    let Answered::Ok(answer) = answered else { return Ok(Ended::Refused) };
    if !common.json {
        if streams {
            say!("{}", missed(&printed, answer.text.as_deref()));
        } else if let Some(text) = &answer.text {
            say!("{}", text.trim_end_matches('\n'));
        }
        eprintln!("\n{}", line(&answer));
    }
    Ok(if answer.success { Ended::Well } else { Ended::Undone })
}

/// What is still to be printed of an answer. What comes as it is written is sent once: it may lack a piece, or its end.
fn missed(printed: &str, text: Option<&str>) -> String {
    let Some(text) = text else { return String::new() };
    match text.strip_prefix(printed) {
        Some(rest) => rest.to_owned(),
        None => format!("\n\nThat lacks something. The answer is:\n\n{text}"),
    }
}

async fn parallel(arguments: ParallelArguments, variables: &Variables) -> Result<Ended, Error> {
    let ParallelArguments { questions, max_concurrent, options, common } = arguments;
    let queries = options.queries(questions)?;
    let id = RequestId::generate();
    let bar = bar(queries.len());
    let (timeout_ms, progress) = (common.timeout_ms, Some(id.to_string()));
    let batch = ModelBatch { queries, max_concurrent, timeout_ms, progress };
    let client = connect(variables).await?;
    let told = |_| bar.inc(1);
    let said = client.ask_told("llm.parallel", &common.tenant, &batch, common.wait(), &id, told).await;
    bar.finish_and_clear();
    let answered: Answered<ModelAnswers> = show(&said?, common.json)?;
    let Answered::Ok(ModelAnswers { results }) = answered else { return Ok(Ended::Refused) };
    if !common.json {
        results.iter().enumerate().for_each(|(index, answer)| print(index, answer));
        let good = results.iter().filter(|answer| answer.success).count();
        eprintln!("{good} of {} answered", results.len());
    }
    Ok(if results.iter().all(|answer| answer.success) { Ended::Well } else { Ended::Undone })
}

async fn pipeline(arguments: PipelineArguments, variables: &Variables) -> Result<Ended, Error> {
    let PipelineArguments { questions, no_context, resume, options, common } = arguments;
    let steps = options.queries(questions)?;
    let done = match &resume {
        None => vec![],
        Some(path) => {
            let earlier: ModelSteps = serde_json::from_str(&read(path)?)
                .map_err(|error| Error::Usage(format!("--resume {}: {error}", path.display())))?;
            earlier.done
        }
    };
    let known: Vec<(String, String)> = steps.iter().map(|step| step.prompt.clone()).zip(done.clone()).collect();
    let id = RequestId::generate();
    let bar = bar(steps.len() - known.len());
    let (timeout_ms, progress) = (common.timeout_ms, Some(id.to_string()));
    let body = ModelPipeline { steps, use_context: Some(!no_context), done, timeout_ms, progress };
    let client = connect(variables).await?;
    let told = |_| bar.inc(1);
    let said = client.ask_told("llm.pipeline", &common.tenant, &body, common.wait(), &id, told).await;
    bar.finish_and_clear();
    let answered: Answered<ModelSteps> = show(&said?, common.json)?;
    let Answered::Ok(steps) = answered else { return Ok(Ended::Refused) };
    if !common.json {
        for (index, (prompt, text)) in known.iter().enumerate() {
            print_text(index, Some(prompt), Some(text));
            eprintln!("known, and not paid again");
        }
        steps.results.iter().enumerate().for_each(|(index, answer)| print(known.len() + index, answer));
        if let Some(failed) = steps.failed_step {
            eprintln!("step {} failed; with --json and --resume it goes on from there", failed + 1);
        }
    }
    Ok(if steps.success { Ended::Well } else { Ended::Undone })
}

impl Options {
    fn query(&self, prompt: String) -> Result<ModelQuery, Error> {
        let schema = match &self.schema {
            None => None,
            Some(path) => Some(
                serde_json::from_str(&read(path)?)
                    .map_err(|error| Error::Usage(format!("--schema {}: {error}", path.display())))?,
            ),
        };
        let options = ModelOptions {
            system: self.system.clone(),
            model: self.model.clone(),
            schema,
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            max_retries: self.max_retries,
            backoff_ms: self.backoff_ms,
            max_cost_usd: self.max_cost_usd,
            ..ModelOptions::default()
        };
        Ok(ModelQuery { prompt, options: Some(options) })
    }

    fn queries(&self, questions: Questions) -> Result<Vec<ModelQuery>, Error> {
        let prompts = match &questions.file {
            None => questions.prompts,
            Some(path) => read(path)?.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect(),
        };
        if prompts.is_empty() {
            return Err(Error::Usage("there is no question".to_owned()));
        }
        prompts.into_iter().map(|prompt| self.query(prompt)).collect()
    }
}

impl Common {
    fn wait(&self) -> Duration {
        self.timeout_ms.map_or(WAIT, |ms| Duration::from_millis(ms).saturating_add(GRACE))
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    text.map_err(|error| Error::Usage(format!("{}: {error}", path.display())))
}

/// On a terminal only.
fn bar(length: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed}");
    ProgressBar::new(length as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn print(index: usize, answer: &ModelAnswer) {
    print_text(index, answer.prompt.as_deref(), answer.text.as_deref());
    eprintln!("{}", line(answer));
}

fn print_text(index: usize, prompt: Option<&str>, text: Option<&str>) {
    say!("## {}. {}\n", index + 1, prompt.unwrap_or("(a long question)"));
    if let Some(text) = text {
        say!("{}\n", text.trim_end_matches('\n'));
    }
}

fn line(answer: &ModelAnswer) -> String {
    let cost = answer.cost_usd.map_or_else(|| "cost unknown".to_owned(), |usd| format!("${usd:.6}"));
    let attempts = if answer.attempts == 1 { String::new() } else { format!(", {} attempts", answer.attempts) };
    let time = answer.time_ms.map_or_else(String::new, |ms| format!(" in {ms:.0} ms"));
    let by = answer.model.as_deref().unwrap_or("no model");
    match &answer.error {
        None => format!("{by}{time}, {cost}{attempts} ({})", answer.session_id),
        Some(error) => format!("failed: {} ({}), {cost}{attempts} ({})", error.message, error.code, answer.session_id),
    }
}

#[cfg(test)]
mod tests {
    use super::missed;

    #[test]
    fn what_was_not_printed_is_printed_at_the_end() {
        assert_eq!(missed("The sky", Some("The sky")), "");
        assert_eq!(missed("The ", Some("The sky")), "sky");
        assert!(missed("The blue", Some("The sky is blue")).ends_with("\nThe sky is blue"));
        assert_eq!(missed("The", None), "");
    }
}
