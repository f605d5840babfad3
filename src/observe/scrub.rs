//! Secrets in free text, by their shape: credentials in URLs, tokens, keys in PEM, and what a word like `password=` or
//! `Bearer` announces.

use super::redact::REMOVED;

/// Words that announce a secret, in lower case, as the end of a name.
const NAMES: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "token",
    "secret",
    "apikey",
    "api_key",
    "api-key",
    "access_key",
    "private_key",
    "credential",
];

/// Words after which a secret stands.
const SCHEMES: [&str; 2] = ["bearer", "basic"];

/// The text without its secrets; none where there are none, which is nearly always.
pub fn scrub(text: &str) -> Option<String> {
    let clean = words(&credentials(&pem(text)));
    (clean != text).then_some(clean)
}

/// Without what stands between BEGIN and END, or the end of the text.
fn pem(text: &str) -> String {
    let mut clean = String::new();
    let mut rest = text;
    while let Some((before, block)) = rest.split_once("-----BEGIN") {
        clean.push_str(before);
        clean.push_str(REMOVED);
        let end = block.find("-----END").map_or(block.len(), |at| at + "-----END".len());
        rest = &block[end..];
        rest = rest.find("-----").map_or(rest, |at| &rest[at + "-----".len()..]);
    }
    clean + rest
}

/// Without the part before `@` in URLs.
fn credentials(text: &str) -> String {
    let mut clean = String::new();
    let mut rest = text;
    while let Some((before, url)) = rest.split_once("://") {
        clean.push_str(before);
        clean.push_str("://");
        let stop = |c: char| c.is_whitespace() || "/?#\"'<>\\".contains(c);
        let authority = &url[..url.find(stop).unwrap_or(url.len())];
        rest = url;
        if let Some(at) = authority.rfind('@') {
            clean.push_str(REMOVED);
            rest = &url[at..];
        }
    }
    clean + rest
}

/// Word by word: tokens by their look, and the values of names that announce a secret.
fn words(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.+/=~%@".contains(c);
    let mut clean = String::with_capacity(text.len());
    let (mut announced, mut sure) = (false, false);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if !is_word(first) {
            let colon = matches!(first, ':' | ' ' | '"' | '\'' | '\t' | '\\');
            announced &= colon;
            sure &= colon;
            clean.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let word = &rest[..rest.find(|c: char| !is_word(c)).unwrap_or(rest.len())];
        rest = &rest[word.len()..];
        if word == REMOVED.trim_matches(['(', ')']) {
            clean.push_str(word);
            (announced, sure) = (false, false);
            continue;
        }
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let lower = name.to_ascii_lowercase();
        let names = NAMES.iter().any(|n| lower.ends_with(n));
        let secret = sure || (announced && looks_random(word)) || is_token(word);
        if secret {
            clean.push_str(REMOVED);
        } else if let Some(value) = value.filter(|v| names && !v.is_empty()) {
            clean.push_str(&word[..word.len() - value.len()]);
            clean.push_str(REMOVED);
        } else {
            clean.push_str(word);
        }
        // `password="a b"` and `password: abc`; a mere mention of a token announces none.
        let opens = value == Some("") && names;
        announced = !secret && (opens || (names && rest.trim_start_matches(['"', '\'', '\\']).starts_with(':')));
        sure =
            !secret && (opens || (SCHEMES.contains(&lower.as_str()) && rest.starts_with(' ') && value_follows(rest)));
    }
    clean
}

/// After `Bearer` and `Basic` comes one long word; in a sentence they are words like others.
fn value_follows(rest: &str) -> bool {
    rest.split_whitespace().next().is_some_and(looks_random)
}

/// Long enough, and not a word of a language.
fn looks_random(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let digits = word.chars().filter(char::is_ascii_digit).count();
    word.len() >= 6 && (digits > 0 || word.chars().any(|c| !c.is_ascii_alphabetic()) || is_mixed(word))
}

fn is_mixed(word: &str) -> bool {
    word.chars().skip(1).any(|c| c.is_ascii_uppercase()) && word.chars().any(|c| c.is_ascii_lowercase())
}

/// A JSON Web Token, or one of kubeadm's bootstrap tokens.
fn is_token(word: &str) -> bool {
    let bootstrap = word.split_once('.').is_some_and(|(id, secret)| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        (id.len(), secret.len()) == (6, 16)
            && id.chars().chain(secret.chars()).all(plain)
            && secret.chars().any(|c| c.is_ascii_digit())
    });
    bootstrap || (word.starts_with("eyJ") && word.len() > 20 && word.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out_and_nothing_else() {
        for (text, clean) in [
            ("proxyconnect http://user:hunter2@proxy:3128 refused", "proxyconnect http://(removed)@proxy:3128 refused"),
            ("Authorization: Bearer abcDEF123456", "Authorization: Bearer (removed)"),
            ("DB_PASSWORD=hunter2 starting", "DB_PASSWORD=(removed) starting"),
            ("{\"password\":\"hunter2x\"}", "{\"password\":\"(removed)\"}"),
            ("password: hunter2", "password: (removed)"),
            ("got eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrIn0.c2ln", "got (removed)"),
            ("join --token abcdef.0123456789abcdef", "join --token (removed)"),
            ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nend", "(removed)\nend"),
            ("?access_token=abc&x=1", "?access_token=(removed)&x=1"),
        ] {
            assert_eq!(scrub(text).as_deref(), Some(clean), "{text}");
            assert_eq!(scrub(clean), None, "{clean}");
        }
        for text in [
            "E1123 11:59:30.000000 1 reflector.go:166] Failed to watch *v1.Service: Unauthorized",
            "secret \"db\" not found",
            "couldn't find key password in Secret bookinfo/db",
            "failed to fetch token: serviceaccounts \"kube-proxy\" is forbidden",
            "dial tcp 10.0.0.10:6443: connect: connection refused",
            "http://10.0.0.10:6443/api?x=1",
            "a bearer of news, basic needs",
        ] {
            assert_eq!(scrub(text), None, "{text}");
        }
    }
}
