//! `kvtier token` and `kvtier grant`: what a daemon knows its callers by.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::Serialize;

use super::CliError;
use super::chain::read_file;
use super::output::Output;
use crate::access::{Grant as Granted, GrantSigner, Role, Token as Secret};
use crate::vocab::limits::GRANT_LIFETIME_MAX;
use crate::vocab::scope::ScopeKind;
use crate::vocab::{BillingId, Clock, Retention, SystemClock, TenantName, UserName};

#[derive(Debug, Args)]
pub(super) struct Token {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token, shown once, and the lines of the access file that stand for it.
    New(NewToken),
}

#[derive(Debug, Args)]
struct NewToken {
    /// The principal's name.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What it may do: worker, biller, admin or read-only.
    #[arg(long, value_name = "ROLE", value_parser = role)]
    role: Role,
    /// A tenant that it may act for; again for more; * for all.
    #[arg(long, value_name = "NAME", required = true)]
    tenant: Vec<String>,
    /// When the token ends, such as 2027-01-31T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    expires: Option<jiff::Timestamp>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Grant {
    #[command(subcommand)]
    command: GrantCommand,
}

#[derive(Debug, Subcommand)]
enum GrantCommand {
    /// Make a gateway's key: the private one into a file, and the lines of the access file that stand for it.
    Key(NewKey),
    /// Sign a grant, as a gateway does for each request.
    Sign(Sign),
}

#[derive(Debug, Args)]
struct NewKey {
    /// The key's name; rotate by adding another one.
    #[arg(long, value_name = "NAME")]
    kid: String,
    /// Where the private key goes (PKCS#8, readable by its owner only).
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// A tenant that the gateway may speak for; again for more.
    #[arg(long, value_name = "NAME", default_value = "*")]
    tenant: Vec<String>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Sign {
    /// The gateway's private key.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// Its name.
    #[arg(long, value_name = "NAME")]
    kid: String,
    /// Whose request it is.
    #[arg(long, value_name = "NAME", value_parser = TenantName::parse)]
    tenant: TenantName,
    /// Which end user's.
    #[arg(long, value_name = "NAME", value_parser = UserName::parse)]
    user: Option<UserName>,
    /// How the bill names it.
    #[arg(long, value_name = "ID", value_parser = BillingId::parse)]
    billing_id: Option<BillingId>,
    /// Which try of the request it is.
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    /// How long its blocks are kept.
    #[arg(long, value_name = "CLASS", value_parser = Retention::parse)]
    retention: Option<Retention>,
    /// A scope that its chains may have: public, public:DOMAIN, tenant or user; any, where none is named. May be given again.
    #[arg(long = "scope", value_name = "SCOPE", value_parser = ScopeKind::parse)]
    scopes: Vec<ScopeKind>,
    /// Seconds for which it is valid.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=GRANT_LIFETIME_MAX.as_secs()))]
    seconds: u64,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct TokenReport {
    token: String,
    access: String,
}

#[derive(Serialize)]
struct KeyReport {
    kid: String,
    public: String,
    access: String,
}

#[derive(Serialize)]
struct GrantReport {
    grant: String,
    expires_s: u64,
}

fn role(name: &str) -> Result<Role, String> {
    let names: Vec<&str> = Role::ALL.iter().map(|role| role.name()).collect();
    Role::from_name(name).ok_or_else(|| format!("role is {name:?}, it must be one of {}", names.join(", ")))
}

/// Words as TOML writes them.
fn quoted(words: &[String]) -> String {
    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}

impl Token {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let TokenCommand::New(new) = &self.command;
        let minted = Secret::mint();
        let stored = match new.expires {
            None => format!("{:?}", minted.stored),
            Some(expires) => format!("{{ hash = {:?}, expires = {expires} }}", minted.stored),
        };
        let access = format!(
            "[[principal]]\nname = {:?}\nrole = {:?}\ntenants = [{}]\ntokens = [{stored}]\n",
            new.name,
            new.role.name(),
            quoted(&new.tenant),
        );
        // What is printed must be what a daemon takes.
        crate::access::Book::parse(&access).map_err(|error| CliError::Bad(error.to_string()))?;
        let report = TokenReport { token: minted.text, access };
        if new.json {
            return output.json(&report);
        }
        let TokenReport { token, access } = &report;
        output.text(format!(
            "{token}\n\nIt is shown this once. Put these lines into the daemon's access file:\n\n{access}"
        ))
    }
}

impl Grant {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        match &self.command {
            GrantCommand::Key(new) => new.run(output),
            GrantCommand::Sign(sign) => sign.run(output),
        }
    }
}

impl NewKey {
    fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let broken = |_| CliError::Bad("no key could be made: the system gives no random bytes".into());
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(broken)?;
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(|error| CliError::Bad(error.to_string()))?;
        let public = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let tenants = quoted(&self.tenant);
        let access = format!("[[grant_key]]\nkid = {:?}\npublic = {public:?}\ntenants = [{tenants}]\n", self.kid);
        crate::access::Book::parse(&access).map_err(|error| CliError::Bad(error.to_string()))?;
        write_secret(&self.output, pkcs8.as_ref())?;
        let report = KeyReport { kid: self.kid.clone(), public, access };
        if self.json {
            return output.json(&report);
        }
        let path = self.output.display();
        output.text(format!(
            "The private key is in {path}. Put these lines into the daemon's access file:\n\n{}",
            report.access
        ))
    }
}

/// A file that only its owner reads, and that was not there.
fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|source| CliError::File { path: path.into(), source })
}

impl Sign {
    fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let pkcs8 = read_file(&self.key_file)?;
        let expires_s = SystemClock.now().0 / 1_000 + self.seconds;
        let granted = Granted {
            tenant: self.tenant.clone(),
            user: self.user.clone(),
            billing_id: self.billing_id.clone(),
            attempt: self.attempt,
            retention: self.retention,
            scopes: self.scopes.clone(),
            expires_s,
        };
        let signed = GrantSigner::new(&self.kid, &pkcs8).sign(&granted);
        let grant = signed.map_err(|error| CliError::Bad(format!("{}: {error}", self.key_file.display())))?;
        if self.json { output.json(&GrantReport { grant, expires_s }) } else { output.text(grant) }
    }
}
