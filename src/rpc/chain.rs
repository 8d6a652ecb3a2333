//! Chains between the wire and the words.

use std::collections::HashMap;
use std::slice::ChunksExact;

use tonic::Status;

use super::access::Caller;
use super::spec::fingerprint;
use super::status::{invalid, not_built, scope as refuse_scope, status, word};
use crate::cache::{Cache, Chain, Error, Keys, Namespace};
use crate::proto::{self, chain::Blocks, scope_step};
use crate::session::Session;
use crate::vocab::key::{EngineKeys, TokenChain};
use crate::vocab::limits::{DIGEST_BYTES_MAX, REQUEST_BLOCKS_MAX, TURN_TOKENS};
use crate::vocab::namespace::HashScheme;
use crate::vocab::{
    AccountName, BlockKey, ChainRoot, DomainName, Furthest, GroupId, Hints, Owner, OwnerPath, Retention, Scope,
    ScopePath, TenantName, UserName,
};

/// Parses a chain. `writer` is who stores it, where it is to be stored.
pub(super) async fn parse(
    cache: &Cache,
    caller: &Caller,
    chain: Option<proto::Chain>,
    writer: Option<&Session>,
) -> Result<Chain, Status> {
    let chain = chain.ok_or_else(|| invalid("chain", "absent", "given"))?;
    let fingerprint = fingerprint("chain.fingerprint", &chain.fingerprint)?;
    let namespace =
        cache.names().namespace(&fingerprint).ok_or_else(|| status(Error::UnknownNamespace(fingerprint)))?;
    let tenant = TenantName::parse(&chain.tenant).map_err(word)?;
    let grant = caller.grant(&chain.grant)?;
    caller.check_tenant(&tenant, grant.as_deref())?;
    check_names_own(caller, &chain)?;
    if chain.group != 0 {
        return Err(not_built(&format!("chain.group {} (other than 0)", chain.group)));
    }
    if chain.adapter_digest.len() > DIGEST_BYTES_MAX {
        let length = format!("{} bytes", chain.adapter_digest.len());
        return Err(invalid("chain.adapter_digest length", length, "at most 64 bytes"));
    }
    let scopes = scopes(&tenant, &chain.scopes)?;
    caller.check_scopes(scopes.steps().iter().map(|(_, scope)| scope), grant.as_deref())?;
    if let (Some(user), Scope::User(_, said, _)) = (grant.as_ref().and_then(|grant| grant.user.as_ref()), scopes.last())
    {
        caller.agrees("chain.scopes user", said.as_str(), user.as_str())?;
    }
    let parent = parent(&chain)?;
    let root = ChainRoot::new(&fingerprint, &chain.adapter_digest, GroupId(0));
    let (keys, tokens) = keys(&namespace, root, &scopes, parent, &chain).await?;
    let storing = chain.storing.unwrap_or_default();
    let furthest = furthest(storing.furthest_tier)?;
    let retention = Retention::parse(&storing.retention)
        .map_err(|error| Status::invalid_argument(format!("chain.storing.{error}")))?;
    if let Some(most) = grant.as_ref().and_then(|grant| grant.retention) {
        caller.agrees("chain.storing.retention", &retention.to_string(), &most.to_string())?;
    }
    let hints = Hints { output_tokens: storing.output_tokens, again: storing.again };
    let base = Owner {
        namespace: namespace.id,
        writer: writer.map_or(0, |session| low(session.instance.digest())),
        group: GroupId(0),
        ram_only: !namespace.spec.persistent() || furthest != Furthest::Nvme,
        ..Owner::default()
    };
    let owners = match writer {
        Some(_) => owners(cache, &tenant, &scopes, base)?,
        None => OwnerPath::all(base),
    };
    let depth = chain.chain_offset;
    Chain { namespace, tenant, owners, retention, hints, furthest, depth, parent, keys, tokens }
        .checked()
        .map_err(status)
}

/// A key that is given, and not computed from the tenant's name, may be another tenant's: whoever may not act for all of them
/// could ask whether it is here.
fn check_names_own(caller: &Caller, chain: &proto::Chain) -> Result<(), Status> {
    if caller.acts_for_all() {
        return Ok(());
    }
    let given = match (&chain.blocks, chain.parent_key.is_empty()) {
        (Some(Blocks::BlockKeys(_)), _) => "chain.block_keys",
        (_, false) => "chain.parent_key",
        _ => return Ok(()),
    };
    Err(caller.refuse_keys(given))
}

/// Whose the blocks are that a writer stores, along the chain.
fn owners(cache: &Cache, tenant: &TenantName, scopes: &ScopePath, base: Owner) -> Result<OwnerPath, Status> {
    let mut path = None;
    for (at, (from, scope)) in scopes.steps().iter().enumerate() {
        let account = match scope.domain() {
            None => cache.names().account(&AccountName::Tenant(tenant.clone())).map_err(status)?,
            Some(domain) => cache.names().known_account(&AccountName::Domain(domain.clone())).ok_or_else(|| {
                Status::failed_precondition(format!(
                    "chain.scopes[{at}] is of the public domain {domain}, which does not exist: an admin creates it \
                     (`kvtier quota set --domain {domain}`)"
                ))
            })?,
        };
        let owner = Owner { account, user: user(scope), scope: breadth(scope), ..base };
        path = Some(path.map_or_else(|| OwnerPath::all(owner), |path: OwnerPath| path.then(*from, owner)));
    }
    Ok(path.unwrap_or_else(|| OwnerPath::all(base)))
}

fn furthest(tier: i32) -> Result<Furthest, Status> {
    match proto::FurthestTier::try_from(tier) {
        Ok(proto::FurthestTier::Unspecified | proto::FurthestTier::Nvme) => Ok(Furthest::Nvme),
        Ok(proto::FurthestTier::Ram) => Ok(Furthest::Ram),
        Ok(proto::FurthestTier::Nothing) => Ok(Furthest::Nothing),
        Err(_) => Err(invalid("chain.storing.furthest_tier", tier, "one of FurthestTier")),
    }
}

/// A user's digest as rows carry it: never 0, which means none.
pub(super) fn user_digest(user: &UserName) -> u32 {
    low(user.digest()).max(1)
}

/// The lower 32 bits of a word's digest.
pub(super) fn low(digest: u128) -> u32 {
    u32::try_from(digest & u128::from(u32::MAX)).unwrap_or_default()
}

fn user(scope: &Scope) -> u32 {
    match scope {
        Scope::User(_, user, _) => user_digest(user),
        Scope::Public | Scope::Domain(_) | Scope::Tenant(_) => 0,
    }
}

fn breadth(scope: &Scope) -> u8 {
    match scope {
        Scope::Public | Scope::Domain(_) => 0,
        Scope::Tenant(_) => 1,
        Scope::User(..) => 2,
    }
}

fn scopes(tenant: &TenantName, steps: &[proto::ScopeStep]) -> Result<ScopePath, Status> {
    if steps.is_empty() {
        return Ok(ScopePath::all(Scope::Tenant(tenant.clone())));
    }
    let mut scopes = Vec::with_capacity(steps.len());
    for (at, step) in steps.iter().enumerate() {
        let scope = match &step.scope {
            Some(scope_step::Scope::Public(_)) => Scope::Public,
            Some(scope_step::Scope::Domain(name)) => Scope::of_domain(DomainName::parse(name).map_err(word)?),
            Some(scope_step::Scope::Tenant(name)) if name == tenant.as_str() => Scope::Tenant(tenant.clone()),
            Some(scope_step::Scope::Tenant(name)) => {
                return Err(invalid(&format!("chain.scopes[{at}].tenant"), name, "the chain's tenant"));
            }
            Some(scope_step::Scope::User(user)) => {
                if user.salt.len() > DIGEST_BYTES_MAX {
                    let length = format!("{} bytes", user.salt.len());
                    return Err(invalid(&format!("chain.scopes[{at}].user.salt length"), length, "at most 64 bytes"));
                }
                let name = UserName::parse(&user.user).map_err(word)?;
                Scope::User(tenant.clone(), name, user.salt.to_vec().into())
            }
            None => return Err(invalid(&format!("chain.scopes[{at}].scope"), "absent", "public, tenant or user")),
        };
        scopes.push((step.from_block, scope));
    }
    ScopePath::new(scopes).map_err(refuse_scope)
}

fn parent(chain: &proto::Chain) -> Result<Option<BlockKey>, Status> {
    let length = format!("{} bytes", chain.parent_key.len());
    match (chain.chain_offset, <[u8; 32]>::try_from(&chain.parent_key[..])) {
        (0, _) if chain.parent_key.is_empty() => Ok(None),
        (0, _) => Err(invalid("chain.parent_key length", length, "0 bytes where chain_offset is 0")),
        (_, Ok(key)) => Ok(Some(BlockKey::from_bytes(key))),
        (_, Err(_)) => Err(invalid("chain.parent_key length", length, "32 bytes where chain_offset is not 0")),
    }
}

async fn keys(
    namespace: &Namespace,
    root: ChainRoot,
    scopes: &ScopePath,
    parent: Option<BlockKey>,
    chain: &proto::Chain,
) -> Result<(Keys, Option<u64>), Status> {
    let spec = &namespace.spec;
    match (&chain.blocks, &spec.hash_scheme) {
        (Some(Blocks::Tokens(tokens)), HashScheme::Tokens) => {
            let block_tokens = spec.block_tokens as usize;
            let blocks = tokens.tokens.len() / block_tokens;
            if blocks > REQUEST_BLOCKS_MAX {
                return Err(invalid("chain.tokens blocks", blocks, "at most 65536 a request: send it in pieces"));
            }
            let hasher = match parent {
                Some(parent) => TokenChain::resume(parent, scopes, chain.chain_offset),
                None => TokenChain::new(root, scopes),
            };
            let extras = extras(&tokens.extras, chain.chain_offset, blocks)?;
            let keys = hash(hasher, tokens.tokens.chunks_exact(block_tokens), &extras).await;
            Ok((Keys::Known(keys.into()), Some(tokens.tokens.len() as u64)))
        }
        (Some(Blocks::EngineKeys(engine)), HashScheme::Engine(_)) => {
            let key_len = engine.key_len as usize;
            EngineKeys::check_length(key_len).map_err(|error| Status::invalid_argument(error.to_string()))?;
            if !engine.keys.len().is_multiple_of(key_len) {
                let length = format!("{} bytes", engine.keys.len());
                return Err(invalid(
                    "chain.engine_keys.keys length",
                    length,
                    &format!("a multiple of key_len ({key_len})"),
                ));
            }
            let roots = EngineKeys::new(root, scopes);
            let (packed, stride, first) = (engine.keys.clone(), spec.stride as usize, chain.chain_offset);
            Ok((Keys::Engine { roots, packed, key_len, stride, first }, None))
        }
        (Some(Blocks::BlockKeys(packed)), _) => {
            if !packed.len().is_multiple_of(32) {
                let length = format!("{} bytes", packed.len());
                return Err(invalid("chain.block_keys length", length, "a multiple of 32"));
            }
            let key = |bytes: &[u8]| bytes.try_into().map(BlockKey::from_bytes).ok();
            Ok((Keys::Known(packed.chunks_exact(32).filter_map(key).collect()), None))
        }
        (Some(Blocks::Tokens(_)), HashScheme::Engine(name)) => {
            Err(invalid("chain.blocks", "tokens", &format!("engine_keys: the namespace's engine_hash is {name}")))
        }
        (Some(Blocks::EngineKeys(_)), HashScheme::Tokens) => {
            Err(invalid("chain.blocks", "engine_keys", "tokens: the namespace has no engine_hash"))
        }
        (None, _) => Err(invalid("chain.blocks", "absent", "tokens, engine_keys or block_keys")),
    }
}

/// The keys of blocks of tokens. A prompt of a million tokens takes some milliseconds, and the thread has other calls: they have
/// their turn in between.
async fn hash(mut hasher: TokenChain<'_>, blocks: ChunksExact<'_, u32>, extras: &Extras<'_>) -> Vec<BlockKey> {
    let mut keys = Vec::with_capacity(blocks.len());
    let mut hashed = 0;
    for (at, tokens) in blocks.enumerate() {
        if hashed >= TURN_TOKENS {
            hashed = 0;
            tokio::task::yield_now().await;
        }
        hashed += tokens.len();
        keys.push(hasher.push(tokens, extras.get(&at).copied().unwrap_or_default()));
    }
    keys
}

type Extras<'a> = HashMap<usize, &'a [u8]>;

/// Digests of single blocks, by their number within the request.
fn extras(extras: &[proto::BlockExtra], offset: u32, blocks: usize) -> Result<Extras<'_>, Status> {
    let mut found = HashMap::new();
    for (at, extra) in extras.iter().enumerate() {
        let field = format!("chain.tokens.extras[{at}]");
        if extra.digest.is_empty() || extra.digest.len() > DIGEST_BYTES_MAX {
            let length = format!("{} bytes", extra.digest.len());
            return Err(invalid(&format!("{field}.digest length"), length, "1 to 64 bytes"));
        }
        let block = extra.block.checked_sub(offset).map(|block| block as usize);
        // A digest of a last block that is not full belongs to no block that could be cached.
        let Some(block) = block.filter(|block| *block <= blocks) else {
            return Err(invalid(&format!("{field}.block"), extra.block, "a block of this request"));
        };
        if found.insert(block, &extra.digest[..]).is_some() {
            return Err(invalid(&format!("{field}.block"), extra.block, "named once"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::vocab::Fingerprint;

    #[test]
    fn a_long_prompt_is_hashed_in_turns_and_a_short_one_at_once() {
        let scopes = ScopePath::all(Scope::Public);
        for (blocks, rests) in [(8, 0), (TURN_TOKENS / 16, 0), (TURN_TOKENS / 16 * 3, 2)] {
            let tokens: Vec<u32> = (0..blocks as u32 * 16).collect();
            let chain = || TokenChain::new(ChainRoot::new(&Fingerprint([1; 32]), b"", GroupId(0)), &scopes);
            let extras = HashMap::from([(3, &b"an image"[..])]);
            let (mut hashing, mut rested) = (pin!(hash(chain(), tokens.chunks_exact(16), &extras)), 0);
            let keys = loop {
                match hashing.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(keys) => break keys,
                    Poll::Pending => rested += 1,
                }
            };
            let mut hasher = chain();
            let expected = tokens.chunks_exact(16).enumerate();
            let expected: Vec<_> =
                expected.map(|(at, tokens)| hasher.push(tokens, if at == 3 { b"an image" } else { b"" })).collect();
            assert_eq!((keys, rested), (expected, rests));
        }
    }
}
