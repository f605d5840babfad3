//! `kubectl bookaccess explain BAxxxx`: the catalogue entry, offline.

use std::fmt::Write as _;
use std::io::Write as _;

use super::args::Globals;
use super::output;
use crate::check::{CATALOGUE, Check, find};
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::i18n::{Locale, say};
use crate::model::{Code, Text};
use crate::render::width::{WIDTH, wrap};

/// Prints one entry, or the list of codes.
///
/// # Errors
/// An unknown code.
pub fn run(globals: &Globals, code: Option<Code>) -> Result<Exit, ExpectedError> {
    if let Some(code) = code
        && find(code).is_none()
    {
        return Err(unknown(code));
    }
    let text = explain(code, globals.locale);
    output::result(|out| out.write_all(text.as_bytes()))?;
    Ok(Exit::Ok)
}

/// The entry of one code, or all codes with their titles.
pub fn explain(code: Option<Code>, locale: Locale) -> String {
    match code.and_then(find) {
        Some(check) => entry(check, locale),
        None => CATALOGUE.iter().map(|c| format!("{}  {}\n", c.code, part(c, "title", locale))).collect(),
    }
}

/// A code that is not in the catalogue: the nearest there are.
fn unknown(code: Code) -> ExpectedError {
    let near = CATALOGUE.iter().filter(|c| c.code.0 / 100 == code.0 / 100 || c.code.0 / 1000 == code.0 / 1000);
    let near: Vec<String> = near.map(|c| c.code.to_string()).collect();
    let near = if near.is_empty() { "BA1001".to_owned() } else { near.join(", ") };
    ExpectedError::new(Exit::Usage, Text::new("explain.unknown").with("code", code).with("near", near))
        .hint(Text::new("error.hint.codes"))
}

fn entry(check: &Check, locale: Locale) -> String {
    let heading = |key: &'static str| say(locale, &Text::new(key));
    let mut lines = vec![format!("{} ({})", check.code, check.slug)];
    lines.extend(wrap("", &part(check, "title", locale), WIDTH));
    for (name, text) in [("explain.why", "why"), ("explain.fix", "fix")] {
        lines.extend([String::new(), heading(name)]);
        lines.extend(wrap("  ", &part(check, text, locale), WIDTH));
    }
    lines.join("\n") + "\n"
}

/// One text of the catalogue; what a finding would fill in stands as `<name>`.
fn part(check: &Check, part: &str, locale: Locale) -> String {
    let text = say(locale, &Text::new(format!("check.{}.{part}", check.code)));
    let mut open = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("%{") {
        let Some((name, behind)) = after.split_once('}') else { break };
        let _ = write!(open, "{before}<{name}>");
        rest = behind;
    }
    open + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained_in_both_languages() {
        for check in CATALOGUE {
            let [ko, en] = [Locale::Ko, Locale::En].map(|l| explain(Some(check.code), l));
            assert!(!ko.contains("check.") && !en.contains("check.") && !ko.contains("%{"), "{ko}{en}");
            assert_ne!(ko, en);
        }
        assert_eq!(explain(None, Locale::Ko).lines().count(), CATALOGUE.len());
    }

    #[test]
    fn an_unknown_code_leads_to_those_there_are() {
        assert!(say(Locale::En, &unknown(Code(3099)).text).contains("BA3002"));
    }
}
