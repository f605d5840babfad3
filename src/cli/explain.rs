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

/// Prints one entry, or the list of codes.
///
/// # Errors
/// An unknown code; stdout that cannot be written.
pub fn run(globals: &Globals, code: Option<Code>) -> Result<Exit, ExpectedError> {
    if let Some(code) = code.filter(|c| find(*c).is_none()) {
        return Err(ExpectedError::new(Exit::Usage, unknown(code)));
    }
    let text = explain(code, globals.locale);
    output::result(|out| out.write_all(text.as_bytes()))?;
    Ok(Exit::Ok)
}

/// The entry of one code, or all codes with their titles. A code that is not in the catalogue gives one sentence and
/// the nearest codes there are.
pub fn explain(code: Option<Code>, locale: Locale) -> String {
    let Some(code) = code else {
        let mut list = String::new();
        for check in CATALOGUE {
            // Writing to a String cannot fail.
            let _ = writeln!(list, "{}  {}", check.code, part(check, "title", locale));
        }
        return list;
    };
    match find(code) {
        Some(check) => entry(check, locale),
        None => say(locale, &unknown(code)) + "\n",
    }
}

fn unknown(code: Code) -> Text {
    let family = CATALOGUE.iter().filter(|c| c.code.0 / 1000 == code.0 / 1000).map(|c| c.code.to_string());
    let family: Vec<String> = family.collect();
    let near = if family.is_empty() { "BA1001".to_owned() } else { family.join(", ") };
    Text::new("explain.unknown").with("code", code).with("near", near)
}

fn entry(check: &Check, locale: Locale) -> String {
    let heading = |key: &'static str| say(locale, &Text::new(key));
    format!(
        "{code} ({slug})\n{title}\n\n{why_heading}\n  {why}\n\n{fix_heading}\n  {fix}\n",
        code = check.code,
        slug = check.slug,
        title = part(check, "title", locale),
        why_heading = heading("explain.why"),
        why = part(check, "why", locale),
        fix_heading = heading("explain.fix"),
        fix = part(check, "fix", locale),
    )
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
        assert!(explain(Some(Code(3099)), Locale::En).contains("BA3002"));
    }
}
