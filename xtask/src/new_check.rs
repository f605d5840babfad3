//! `cargo xtask new-check BA1234 some-slug`: the files of a new check, to be filled in.

use std::path::Path;

use anyhow::{Context, ensure};

use crate::codegen;

/// Writes the check, its texts and its fixture, and brings the catalogue up to date. Nothing that exists is touched.
pub fn run(root: &Path, code: &str, slug: &str) -> anyhow::Result<()> {
    let stem = format!("{}_{}", code.to_lowercase(), slug.replace('-', "_"));
    ensure!(codegen::is_stem(&stem), "wanted: new-check BA1234 some-slug");
    let lower = code.to_lowercase();
    let upper = code.to_uppercase();
    let number = &upper[2..];
    let taken = std::fs::read_dir(root.join(codegen::CHECKS))?
        .filter_map(Result::ok)
        .any(|e| e.file_name().to_string_lossy().starts_with(&format!("{lower}_")));
    ensure!(!taken, "{upper} is taken");
    let files = [
        (format!("{}/{stem}.rs", codegen::CHECKS), check(number, slug)),
        (format!("locales/checks/{lower}.yml"), texts(&upper)),
        (format!("src/check/testdata/{lower}.yaml"), fixture(root, &upper)?),
    ];
    for (path, _) in &files {
        ensure!(!root.join(path).exists(), "{path} exists");
    }
    for (path, text) in &files {
        std::fs::write(root.join(path), text).with_context(|| format!("writing {path}"))?;
    }
    codegen::run(root)
}

fn check(number: &str, slug: &str) -> String {
    format!(
        r#"//! BA{number}: say in one sentence what is broken.

use crate::check::{{Check, Hop}};
use crate::facts::{{Facts, TargetFacts}};
use crate::model::{{Code, Confidence, Finding, Severity}};

pub(crate) const CHECK: Check = Check {{
    code: Code({number}),
    slug: "{slug}",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[],
    either: &[],
    remedies: &[],
    explains: &[],
    run,
}};

fn run(_check: &Check, _facts: &Facts<'_>, _target: &TargetFacts<'_>) -> Vec<Finding> {{
    Vec::new()
}}

#[cfg(test)]
mod tests {{
    use crate::check::sample::Sample;

    #[test]
    fn it_is_found() {{
        let sample = Sample::healthy();
        // Break the sample here, in one place.
        sample.finding({number});
    }}
}}
"#
    )
}

fn texts(upper: &str) -> String {
    format!(
        "_version: 2\ncheck:\n  {upper}:\n    title:\n      ko: \"\"\n      en: \"\"\n    why:\n      ko: \"\"\n      \
         en: \"\"\n    fix:\n      ko: \"\"\n      en: \"\"\n"
    )
}

/// The healthy cluster, to be broken in one place.
fn fixture(root: &Path, upper: &str) -> anyhow::Result<String> {
    let healthy = std::fs::read_to_string(root.join("src/check/testdata/healthy_kubeadm.yaml"))?;
    let (_, body) = healthy.split_once("\n\n").unwrap_or(("", &healthy));
    Ok(format!("# Say what is broken here.\n# expect: {upper} error certain bookinfo/productpage\n\n{body}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_new_check_has_all_its_files_and_is_in_the_catalogue() {
        let root = tempfile::tempdir().unwrap();
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for folder in ["src/check/checks", "src/check/testdata", "locales/checks"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let healthy = "src/check/testdata/healthy_kubeadm.yaml";
        std::fs::copy(repository.join(healthy), root.path().join(healthy)).unwrap();
        run(root.path(), "BA9998", "moon-phase").unwrap();
        let catalogue = std::fs::read_to_string(root.path().join(codegen::CATALOGUE)).unwrap();
        assert!(catalogue.contains("    ba9998_moon_phase::CHECK,\n"));
        assert!(root.path().join("locales/checks/ba9998.yml").exists());
        assert!(root.path().join("src/check/testdata/ba9998.yaml").exists());
        assert!(run(root.path(), "BA9998", "moon-phase").is_err(), "an existing check must not be overwritten");
    }
}
