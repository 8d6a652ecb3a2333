//! Bearer tokens: `kvt_<id>_<secret>`. The secret has 256 random bits, so that a plain hash of it can't be searched for: what
//! slow hashes are for is words that people choose.

use std::fmt;

/// What every token begins with: for people, and for programs that look for leaked secrets.
const PREFIX: &str = "kvt_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// A token as a caller shows it.
#[derive(Clone)]
pub struct Token<'a> {
    id: &'a str,
    secret: &'a str,
}

/// The hash of a token's secret: what is stored.
#[derive(Clone, Copy, Debug)]
pub struct TokenHash(blake3::Hash);

/// A new token.
pub struct MintedToken {
    /// The whole of it: shown once, and kept nowhere.
    pub text: String,
    /// The line of the access file that stands for it: its id, a colon, and the hash of its secret.
    pub stored: String,
}

impl<'a> Token<'a> {
    /// Reads a token.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let hex =
            |text: &str, bytes: usize| text.len() == 2 * bytes && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        (hex(id, ID_BYTES) && hex(secret, SECRET_BYTES)).then_some(Self { id, secret })
    }

    /// Its public part: what finds its hash.
    #[must_use]
    pub fn id(&self) -> &str {
        self.id
    }

    fn hash(&self) -> blake3::Hash {
        let key = blake3::derive_key("kvtier 2026 bearer token", self.id.as_bytes());
        blake3::keyed_hash(&key, self.secret.as_bytes())
    }

    /// Whether it is the one whose hash is known. As long for a known id as for none, and wherever the two differ.
    #[must_use]
    pub fn is(&self, known: Option<&TokenHash>) -> bool {
        let nobody = TokenHash(blake3::Hash::from_bytes([0; 32]));
        // `blake3::Hash` compares in constant time.
        self.hash() == known.unwrap_or(&nobody).0 && known.is_some()
    }

    /// A new one, from the system's source of random bytes.
    #[must_use]
    pub fn mint() -> MintedToken {
        let (id, secret): ([u8; ID_BYTES], [u8; SECRET_BYTES]) = (rand::random(), rand::random());
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let (id, secret) = (hex(&id), hex(&secret));
        let hash = Token { id: &id, secret: &secret }.hash();
        MintedToken { text: format!("{PREFIX}{id}_{secret}"), stored: format!("{id}:{}", hash.to_hex()) }
    }
}

impl TokenHash {
    /// Reads what the access file holds: the token's id and its hash.
    #[must_use]
    pub fn parse(stored: &str) -> Option<(String, Self)> {
        let (id, hash) = stored.split_once(':')?;
        let is_id = id.len() == 2 * ID_BYTES && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        Some((id.to_owned(), Self(blake3::Hash::from_hex(hash).ok()?))).filter(|_| is_id)
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, secret)", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_its_own_hash_and_no_other() {
        let (one, two) = (Token::mint(), Token::mint());
        let token = Token::parse(&one.text).unwrap();
        let (id, hash) = TokenHash::parse(&one.stored).unwrap();
        assert_eq!(id, token.id());
        assert!(token.is(Some(&hash)) && !token.is(None));
        assert!(!Token::parse(&two.text).unwrap().is(Some(&hash)));
        // The id is part of what is hashed: another token's secret under this id is none.
        let mixed = format!("{PREFIX}{id}_{}", Token::parse(&two.text).unwrap().secret);
        assert!(!Token::parse(&mixed).unwrap().is(Some(&hash)));
        assert!(!one.stored.contains(token.secret) && !format!("{token:?}").contains(token.secret));
    }

    #[test]
    fn what_is_no_token_is_none() {
        let text = Token::mint().text;
        for bad in ["", "kvt_", "Bearer x", &text[1..], &text[..text.len() - 1], &format!("{text}0")] {
            assert!(Token::parse(bad).is_none(), "{bad}");
        }
        for bad in ["", "0123456789abcdef", "0123456789abcdef:12", "short:0000"] {
            assert!(TokenHash::parse(bad).is_none(), "{bad}");
        }
    }
}
