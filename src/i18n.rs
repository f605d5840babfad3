//! The only file that knows the translation library: Texts become sentences in a Locale here.

use std::ffi::{OsStr, OsString};

use crate::model::Text;

/// The languages spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
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
    let mut sentence = rust_i18n::t!(text.key.as_ref(), locale = locale.tag()).into_owned();
    for (name, value) in &text.args {
        sentence = sentence.replace(&format!("%{{{name}}}"), value);
    }
    sentence
}
