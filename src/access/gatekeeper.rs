//! Identifies callers by the access file in force, which may change while connections are open.

use std::sync::{Arc, PoisonError, RwLock};

use super::audit::Audit;
use super::book::Book;
use super::grant::{Grant, GrantError, Grants};
use super::principal::Principal;
use super::token::Token;
use crate::vocab::Timestamp;

/// What a caller shows.
#[derive(Clone, Debug, Default)]
pub struct Credentials<'a> {
    /// What stands behind `authorization: Bearer`.
    pub bearer: Option<&'a str>,
    /// DNS names and URIs of its client certificate, which TLS has verified.
    pub certificate: Vec<String>,
    /// The user of its process, where it is of the same host.
    pub uid: Option<u32>,
}

/// The access file in force, and the grants that were verified by its keys: they go with it, also those that a request is
/// still verifying while the file is replaced.
#[derive(Debug)]
struct InForce {
    book: Book,
    grants: Grants,
}

impl InForce {
    fn new(book: Book) -> Arc<Self> {
        Arc::new(Self { book, grants: Grants::default() })
    }

    fn grant(&self, text: &str, now: Timestamp) -> Result<Arc<Grant>, GrantError> {
        self.grants.verify(text, now, |kid| self.book.grant_key(kid).cloned())
    }
}

/// Decides who is who.
#[derive(Debug)]
pub struct Gatekeeper {
    /// `None`: nobody is known, and only processes of this host can reach the daemon.
    in_force: Option<RwLock<Arc<InForce>>>,
    /// The user whom the daemon runs as: he can read its folder anyway.
    own_uid: u32,
    /// Whoever is known by nothing but being on this host.
    local: Arc<Principal>,
    /// What was refused.
    pub audit: Audit,
}

impl Gatekeeper {
    /// For a daemon that only processes of its own host can reach: all of them may do everything.
    #[must_use]
    pub fn open() -> Self {
        Self { in_force: None, own_uid: 0, local: Arc::new(Principal::local()), audit: Audit::default() }
    }

    /// With an access file. Processes of root and of the daemon's own user are admins beside those whom it names.
    #[must_use]
    pub fn new(book: Book, own_uid: u32) -> Self {
        Self { in_force: Some(RwLock::new(InForce::new(book))), own_uid, ..Self::open() }
    }

    /// From now on this file is in force, also for connections that are open.
    pub fn replace(&self, book: Book) {
        if let Some(known) = &self.in_force {
            *known.write().unwrap_or_else(PoisonError::into_inner) = InForce::new(book);
        }
    }

    fn in_force(&self) -> Option<Arc<InForce>> {
        let known = self.in_force.as_ref()?;
        Some(Arc::clone(&known.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Who is calling.
    ///
    /// # Errors
    /// Why nobody that is known is: to be told to the caller, and written down.
    pub fn identify(&self, shown: &Credentials<'_>, now: Timestamp) -> Result<Arc<Principal>, &'static str> {
        let Some(known) = self.in_force() else { return Ok(Arc::clone(&self.local)) };
        let book = &known.book;
        if let Some(bearer) = shown.bearer {
            // What is shown must be good, whatever else would do.
            let token = Token::parse(bearer).ok_or("the bearer token is not of the form kvt_ID_SECRET")?;
            return book.of_token(&token, now).ok_or("the bearer token is unknown, revoked or expired");
        }
        if let Some(principal) = book.of_certificate(shown.certificate.iter().map(String::as_str)) {
            return Ok(principal);
        }
        if let Some(uid) = shown.uid {
            let own = || (uid == 0 || uid == self.own_uid).then(|| Arc::clone(&self.local));
            return book.of_uid(uid).or_else(own).ok_or("the process's user is not in the access file");
        }
        let names_none = "no principal of the access file has a name of the client certificate";
        Err(if shown.certificate.is_empty() { "a bearer token or a client certificate is needed" } else { names_none })
    }

    /// Whether processes of this user may be handed all tenants' memory.
    #[must_use]
    pub fn may_map(&self, uid: u32) -> bool {
        use super::principal::{Permission, Tenants};
        let shown = Credentials { uid: Some(uid), ..Credentials::default() };
        let may =
            |principal: Arc<Principal>| principal.role.may(Permission::CacheRead) && principal.tenants == Tenants::All;
        self.in_force.is_some() && self.identify(&shown, Timestamp(0)).is_ok_and(may)
    }

    /// What a grant says.
    ///
    /// # Errors
    /// When it is not a valid one now.
    pub fn grant(&self, text: &str, now: Timestamp) -> Result<Arc<Grant>, GrantError> {
        self.in_force().ok_or(GrantError::NoKeys)?.grant(text, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_taken_out_is_refused_from_then_on() {
        let token = Token::mint();
        let text = |tokens: &str| {
            format!(
                "[[principal]]\nname = \"a\"\nrole = \"biller\"\ntenants = [\"*\"]\nuids = [7]\ntokens = [{tokens}]"
            )
        };
        let known = Book::parse(&text(&format!("\"{}\"", token.stored))).unwrap();
        let keeper = Gatekeeper::new(known, 500);
        let by_token = Credentials { bearer: Some(&token.text), uid: Some(7), ..Credentials::default() };
        let by_uid = |uid| Credentials { uid: Some(uid), ..Credentials::default() };
        let name = |shown: &Credentials<'_>| keeper.identify(shown, Timestamp(1)).map(|known| known.name.clone());
        assert_eq!(name(&by_token).as_deref(), Ok("a"));
        assert_eq!((name(&by_uid(7)).as_deref(), name(&by_uid(500)).as_deref()), (Ok("a"), Ok("local")));
        assert!(name(&by_uid(8)).is_err() && name(&Credentials::default()).is_err());
        keeper.replace(Book::parse(&text("")).unwrap());
        assert!(name(&by_token).unwrap_err().contains("unknown, revoked or expired"), "though his user would do");
        assert!(!keeper.may_map(7) && keeper.may_map(0) && keeper.may_map(500) && !keeper.may_map(8));
    }

    #[test]
    fn a_grant_that_is_being_verified_while_its_key_is_taken_out_is_refused_from_then_on() {
        let (signer, public) = super::super::grant::tests::pair();
        let key = format!("[[grant_key]]\nkid = \"k1\"\npublic = \"{public}\"\ntenants = [\"*\"]");
        let keeper = Gatekeeper::new(Book::parse(&key).unwrap(), 500);
        let tenant = crate::vocab::TenantName::parse("acme").unwrap();
        let said = Grant {
            tenant,
            user: None,
            billing_id: None,
            attempt: None,
            retention: None,
            scopes: Vec::new(),
            expires_s: 1_000,
        };
        let (text, now) = (signer.sign(&said).unwrap(), Timestamp(900_000));
        let before = keeper.in_force().unwrap();
        keeper.replace(Book::parse("").unwrap());
        assert!(before.grant(&text, now).is_ok(), "by the file that was in force when it came");
        assert_eq!(keeper.grant(&text, now), Err(GrantError::UnknownKey("k1".into())));
    }

    #[test]
    fn without_an_access_file_all_of_the_host_are_admins() {
        let keeper = Gatekeeper::open();
        let principal = keeper.identify(&Credentials::default(), Timestamp(0)).unwrap();
        assert_eq!(*principal, Principal::local());
        assert!(!keeper.may_map(7), "memory is for those whom the handover knows by itself");
    }
}
