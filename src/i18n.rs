//! The only file that knows the translation library: Texts become sentences in a Locale here.

use std::ffi::{OsStr, OsString};

use crate::model::Text;

/// The languages spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Locale {
    #[default]
    Ko,
    En,
}

impl Locale {
    /// As the locale files name it.
    pub fn tag(self) -> &'static str {
        match self {
            Locale::Ko => "ko",
            Locale::En => "en",
        }
    }

    /// The language of this run, known before the command line is read as a whole, because help and usage errors
    /// need it: `--lang`, `BOOKACCESS_LANG`, the locale where it names a language, else Korean.
    pub fn choose(args: &[OsString]) -> Self {
        lang_flag(args)
            .or_else(|| std::env::var("BOOKACCESS_LANG").ok().and_then(|v| Self::named(&v)))
            .or_else(|| system_locale(|name| std::env::var(name).ok()).and_then(|l| Self::of_system(&l)))
            .unwrap_or_default()
    }

    /// `ko`, `en`, and what begins with them (`ko-KR`, `en_US`). None for anything else.
    fn named(text: &str) -> Option<Self> {
        match language(text).as_str() {
            "ko" => Some(Locale::Ko),
            "en" => Some(Locale::En),
            _ => None,
        }
    }

    /// The language for a POSIX locale: Korean for `ko*`, English for every other language, None for `C` and `POSIX`,
    /// which name none.
    fn of_system(locale: &str) -> Option<Self> {
        match language(locale).as_str() {
            "" | "c" | "posix" => None,
            "ko" => Some(Locale::Ko),
            _ => Some(Locale::En),
        }
    }
}

/// `ko` of `ko_KR.UTF-8`.
fn language(locale: &str) -> String {
    locale.split(['_', '-', '.', '@']).next().unwrap_or_default().to_ascii_lowercase()
}

/// The value of `--lang` wherever it stands before `--`.
fn lang_flag(args: &[OsString]) -> Option<Locale> {
    let words: Vec<&str> = args.iter().skip(1).map(|a| OsStr::to_str(a).unwrap_or_default()).collect();
    let end = words.iter().position(|w| *w == "--").unwrap_or(words.len());
    let value = |i: usize| {
        words[i].strip_prefix("--lang=").or_else(|| words.get(i + 1).filter(|_| words[i] == "--lang").copied())
    };
    (0..end).rev().find_map(value).and_then(Locale::named)
}

/// The first of LC_ALL, LC_MESSAGES and LANG that is set; on macOS and Windows, where a terminal may set none, the system's.
fn system_locale(var: impl Fn(&str) -> Option<String>) -> Option<String> {
    let posix = ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().filter_map(var).find(|v| !v.is_empty());
    if posix.is_some() || cfg!(not(any(target_os = "macos", windows))) {
        return posix;
    }
    sys_locale::get_locale()
}

/// The sentence in that language, arguments filled in.
pub fn say(locale: Locale, text: &Text) -> String {
    let pattern = rust_i18n::t!(text.key.as_ref(), locale = locale.tag());
    let mut sentence = String::with_capacity(pattern.len());
    let mut rest: &str = &pattern;
    // One pass, so that nothing inside a value is ever taken for a placeholder.
    while let Some((before, name, after)) = next_placeholder(rest) {
        sentence.push_str(before);
        match text.args.iter().find(|(n, _)| n == name) {
            Some((_, value)) => sentence.push_str(value),
            None => sentence.push_str(&rest[before.len()..rest.len() - after.len()]),
        }
        rest = after;
    }
    sentence.push_str(rest);
    sentence
}

/// What stands before the first `%{name}`, the name, and what stands behind it.
fn next_placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("%{")?;
    let (name, after) = rest.split_once('}')?;
    Some((before, name, after))
}

#[cfg(test)]
mod gate;

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_flag_is_found_wherever_it_stands() {
        for (line, expected) in [
            ("x --lang en diagnose", Some(Locale::En)),
            ("x diagnose --lang=ko", Some(Locale::Ko)),
            ("x --lang ko diagnose --lang en", Some(Locale::En)),
            ("x --lang ko-KR", Some(Locale::Ko)),
            ("x --lang fr", None),
            ("x diagnose --lang", None),
            ("x diagnose -- --lang en", None),
            ("x diagnose --language en", None),
        ] {
            assert_eq!(lang_flag(&words(line)), expected, "{line}");
        }
    }

    #[test]
    fn a_locale_names_a_language_or_none() {
        for (locale, expected) in [
            ("ko_KR.UTF-8", Some(Locale::Ko)),
            ("ko", Some(Locale::Ko)),
            ("ko-KR", Some(Locale::Ko)),
            ("ko_KR.eucKR", Some(Locale::Ko)),
            ("en_US.UTF-8", Some(Locale::En)),
            ("de_DE@euro", Some(Locale::En)),
            ("kok_IN", Some(Locale::En)),
            ("C", None),
            ("C.UTF-8", None),
            ("POSIX", None),
            ("", None),
        ] {
            assert_eq!(Locale::of_system(locale), expected, "{locale}");
        }
    }

    #[test]
    fn the_first_variable_that_is_set_counts_even_where_it_names_no_language() {
        let with = |set: &'static [(&str, &str)]| {
            system_locale(|name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
        };
        assert_eq!(with(&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]).as_deref(), Some("C"));
        assert_eq!(with(&[("LC_ALL", ""), ("LC_MESSAGES", "en_GB"), ("LANG", "ko_KR")]).as_deref(), Some("en_GB"));
        if cfg!(target_os = "linux") {
            assert_eq!(with(&[]), None);
        }
    }

    #[test]
    fn arguments_are_put_in_once() {
        let text = Text::new("error.hint.nearest").with("name", "%{name}");
        assert_eq!(say(Locale::En, &text), "Did you mean `%{name}`?");
        assert_eq!(say(Locale::En, &Text::new("error.hint.nearest")), "Did you mean `%{name}`?");
    }
}
