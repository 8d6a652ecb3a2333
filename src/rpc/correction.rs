//! A correction of settled usage, as the wire says it.

use tonic::Status;

use super::access::Caller;
use super::status::{invalid, word};
use crate::cache::settle::Correct;
use crate::ledger::Truth;
use crate::proto;
use crate::vocab::{BillingId, ClassName, TenantName, TokenCount};

pub(super) fn parse(caller: &Caller, request: proto::CorrectUsageRequest) -> Result<Correct, Status> {
    let tenant = TenantName::parse(&request.tenant).map_err(word)?;
    caller.check_tenant(&tenant, None)?;
    let billing_id = BillingId::parse(&request.billing_id).map_err(word)?;
    let corrects = BillingId::parse(&request.corrects)
        .map_err(|error| invalid("corrects", &request.corrects, error.rule.trim_start_matches("must be ")))?;
    let (refund, reason) = (request.refund, request.reason.clone());
    let truth = truth(request)?;
    let truth = match (refund, truth == Truth::default()) {
        (false, _) => truth,
        (true, true) => Truth::refund(),
        (true, false) => return Err(invalid("refund", true, "false where a number is given")),
    };
    Ok(Correct { tenant, billing_id, corrects, reason, truth })
}

fn truth(request: proto::CorrectUsageRequest) -> Result<Truth, Status> {
    let classes = |classes: proto::WrittenByClass| {
        let class = |(name, tokens): (String, u64)| Ok((ClassName::parse(&name)?, TokenCount(tokens)));
        classes.tokens.into_iter().map(class).collect::<Result<_, _>>().map_err(word)
    };
    Ok(Truth {
        prompt: request.prompt_tokens.map(TokenCount),
        cached: request.cached_tokens.map(TokenCount),
        attested: request.attested_tokens.map(TokenCount),
        written: request.written_tokens.map(TokenCount),
        output: request.output_tokens.map(TokenCount),
        written_by_class: request.written_by_class.map(classes).transpose()?,
    })
}
