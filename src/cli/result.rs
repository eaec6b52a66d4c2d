//! `tandem result`

use clap::Args;

use super::client::{Answered, connect, parse_tenant, show};
use super::out::Out;
use super::{Ended, Error, request};
use crate::bus::wire::Response;
use crate::config::Variables;
use crate::domain::{RequestId, Tenant};

/// Print the result of a submit, as `tandem request` prints an answer. 1 where there is none, or none yet.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The id that it was submitted under.
    #[arg(value_parser = parse_id)]
    id: RequestId,
    #[command(flatten)]
    out: Out,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
    /// Act as this tenant.
    #[arg(long, value_parser = parse_tenant, default_value = "default")]
    tenant: Tenant,
}

fn parse_id(text: &str) -> Result<RequestId, String> {
    RequestId::parse(text).map_err(|error| error.to_string())
}

pub(super) async fn run(arguments: &Arguments, variables: &Variables) -> Result<Ended, Error> {
    let client = connect(variables).await?;
    let Some(said) = client.result(&arguments.tenant, &arguments.id).await? else {
        let id = &arguments.id;
        eprintln!("tandem: there is no result for '{id}': it is not done yet, was never submitted, or is too old");
        return Ok(Ended::Refused);
    };
    let answered: Answered<Response> = show(&said, arguments.json)?;
    request::ended(&answered, &arguments.out, arguments.json)
}
