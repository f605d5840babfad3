//! The only file that knows the translation library: Texts become sentences in a Locale here.

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
}

/// The sentence in that language, arguments filled in.
pub fn say(locale: Locale, text: &Text) -> String {
    let mut sentence = rust_i18n::t!(text.key.as_ref(), locale = locale.tag()).into_owned();
    for (name, value) in &text.args {
        sentence = sentence.replace(&format!("%{{{name}}}"), value);
    }
    sentence
}
