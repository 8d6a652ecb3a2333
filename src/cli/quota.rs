//! `kvtier quota`: what tenants and public domains hold, and may hold.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::Output;
use super::server::Server;
use super::table::numbers;
use super::{CliError, size};
use crate::client::{AccountInfo, WireQuota};
use crate::vocab::{AccountName, ByteCount, DomainName, TenantName, TierQuota};

/// What stands for no limit on the command line.
const NONE: &str = "none";

#[derive(Debug, Args)]
pub(super) struct Quota {
    #[command(subcommand)]
    command: QuotaCommand,
}

#[derive(Debug, Subcommand)]
enum QuotaCommand {
    /// Every account that holds something or has a quota.
    Show(Show),
    /// Change what an account may keep, while the server runs; what is not given stays as it is.
    Set(Set),
}

#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    server: Server,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Set {
    #[command(flatten)]
    of: Account,
    /// Bytes of RAM that nobody else can take from it.
    #[arg(long, value_name = "SIZE", value_parser = size::parser("--ram-share"))]
    ram_share: Option<ByteCount>,
    /// Bytes of RAM that it never exceeds; `none` for the whole tier.
    #[arg(long, value_name = "SIZE", value_parser = limit("--ram-limit"))]
    ram_limit: Option<Limit>,
    /// Bytes of NVMe that nobody else can take from it. Guaranteed lifetimes and pins draw on it.
    #[arg(long, value_name = "SIZE", value_parser = size::parser("--nvme-share"))]
    nvme_share: Option<ByteCount>,
    /// Bytes of NVMe that it never exceeds; `none` for the whole tier.
    #[arg(long, value_name = "SIZE", value_parser = limit("--nvme-limit"))]
    nvme_limit: Option<Limit>,
    #[command(flatten)]
    server: Server,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Account {
    /// Whose.
    #[arg(long, value_name = "NAME", value_parser = TenantName::parse)]
    tenant: Option<TenantName>,
    /// A public domain's; it is created where it is not there.
    #[arg(long, value_name = "NAME", value_parser = DomainName::parse)]
    domain: Option<DomainName>,
}

/// A limit, or none.
#[derive(Clone, Copy, Debug)]
struct Limit(Option<ByteCount>);

fn limit(field: &'static str) -> impl Fn(&str) -> Result<Limit, size::SizeError> + Clone + Send + Sync + 'static {
    move |text| if text == NONE { Ok(Limit(None)) } else { size::parse(field, text).map(|bytes| Limit(Some(bytes))) }
}

/// An account, as programs see it.
#[derive(Serialize)]
struct AccountView {
    tenant: Option<String>,
    domain: Option<String>,
    ram_bytes: u64,
    nvme_bytes: u64,
    kept_bytes: u64,
    ram_share_bytes: u64,
    ram_limit_bytes: Option<u64>,
    nvme_share_bytes: u64,
    nvme_limit_bytes: Option<u64>,
}

impl AccountView {
    fn of(info: AccountInfo) -> Self {
        let word = |word: String| (!word.is_empty()).then_some(word);
        let (ram, nvme) = (info.ram.unwrap_or_default(), info.nvme.unwrap_or_default());
        Self {
            tenant: word(info.tenant),
            domain: word(info.domain),
            ram_bytes: info.ram_bytes,
            nvme_bytes: info.nvme_bytes,
            kept_bytes: info.kept_bytes,
            ram_share_bytes: ram.share_bytes,
            ram_limit_bytes: ram.limit_bytes,
            nvme_share_bytes: nvme.share_bytes,
            nvme_limit_bytes: nvme.limit_bytes,
        }
    }
}

impl Quota {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        match &self.command {
            QuotaCommand::Show(show) => show.run(output),
            QuotaCommand::Set(set) => set.run(output),
        }
    }
}

impl Show {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let accounts = self.server.ask(async |client| Ok(client.inspect_accounts().await?))?;
        let views: Vec<AccountView> = accounts.into_iter().map(AccountView::of).collect();
        if self.json {
            return output.json(&views);
        }
        if views.is_empty() {
            return output.text("No account holds anything or has a quota.");
        }
        output.text(table(&views))
    }
}

impl Set {
    fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let account = match (&self.of.tenant, &self.of.domain) {
            (Some(tenant), _) => AccountName::Tenant(tenant.clone()),
            (None, Some(domain)) => AccountName::Domain(domain.clone()),
            (None, None) => return Err(CliError::usage("--tenant", &"absent", "given, or --domain")),
        };
        let set = self.server.ask(async |client| {
            let known = client.inspect_accounts().await?.into_iter().map(AccountView::of);
            let is_it = |view: &AccountView| match &account {
                AccountName::Tenant(tenant) => view.tenant.as_deref() == Some(tenant.as_str()),
                AccountName::Domain(domain) => view.domain.as_deref() == Some(domain.as_str()),
            };
            let known = known.into_iter().find(is_it).unwrap_or_else(|| AccountView::of(AccountInfo::default()));
            let ram = tier(self.ram_share, self.ram_limit, known.ram_share_bytes, known.ram_limit_bytes);
            let nvme = tier(self.nvme_share, self.nvme_limit, known.nvme_share_bytes, known.nvme_limit_bytes);
            Ok(client.set_quota(&account, ram, nvme).await?)
        })?;
        let view = AccountView::of(set);
        if self.json { output.json(&view) } else { output.text(table(&[view])) }
    }
}

/// What of a tier's quota is changed, if anything.
fn tier(
    share: Option<ByteCount>,
    limit: Option<Limit>,
    known_share: u64,
    known_limit: Option<u64>,
) -> Option<TierQuota> {
    if share.is_none() && limit.is_none() {
        return None;
    }
    let limit = limit.map_or(known_limit.map(ByteCount), |limit| limit.0);
    Some(TierQuota { share: share.unwrap_or(ByteCount(known_share)), limit })
}

fn table(views: &[AccountView]) -> String {
    let bytes = |bytes: u64| size::human(ByteCount(bytes));
    let quota = |tier: WireQuota| match (tier.share_bytes, tier.limit_bytes) {
        (0, None) => "-".to_owned(),
        (share, None) => format!("{} or more", bytes(share)),
        (0, Some(limit)) => format!("at most {}", bytes(limit)),
        (share, Some(limit)) => format!("{} to {}", bytes(share), bytes(limit)),
    };
    let row = |view: &AccountView| {
        let name = match (&view.tenant, &view.domain) {
            (Some(tenant), _) => tenant.clone(),
            (None, domain) => format!("public domain {}", domain.as_deref().unwrap_or("-")),
        };
        let ram = WireQuota { share_bytes: view.ram_share_bytes, limit_bytes: view.ram_limit_bytes };
        let nvme = WireQuota { share_bytes: view.nvme_share_bytes, limit_bytes: view.nvme_limit_bytes };
        [name, bytes(view.ram_bytes), quota(ram), bytes(view.nvme_bytes), quota(nvme), bytes(view.kept_bytes)]
    };
    let header = ["account", "in RAM", "RAM quota", "on NVMe", "NVMe quota", "kept"];
    numbers(header, views.iter().map(row)).to_string()
}
