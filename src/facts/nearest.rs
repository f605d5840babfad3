//! Which name or label was probably meant.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;

use super::service::template_labels;

/// Levenshtein distance: how many characters to insert, delete or replace.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The candidate nearest to `wanted`, where it is near enough to be a slip: at most a third of its characters differ.
pub fn name<'a>(wanted: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = wanted.chars().count().div_ceil(3);
    candidates
        .map(|c| (distance(wanted, c), c))
        .filter(|(d, c)| *d <= limit || c.starts_with(wanted) || (c.len() > 2 && wanted.starts_with(c)))
        .min()
        .map(|(_, c)| c)
}

/// The Deployment that a Service with this name and selector was probably meant for.
pub fn deployment<'a>(
    deployments: &[&'a Deployment],
    service: &str,
    selector: Option<&BTreeMap<String, String>>,
) -> Option<&'a Deployment> {
    let versioned = format!("{service}-v");
    let score = |d: &Deployment| {
        let name = d.metadata.name.as_deref().unwrap_or_default();
        let labels = template_labels(d);
        let telling = || selector.into_iter().flatten().filter(|(k, _)| *k != "version" && *k != "pod-template-hash");
        let agreeing = telling().filter(|(k, v)| labels.and_then(|l| l.get(*k)) == Some(*v)).count();
        let similar = telling().any(|(k, v)| {
            labels.and_then(|l| l.get(k)).is_some_and(|have| self::name(v, std::iter::once(have.as_str())).is_some())
        });
        (usize::from(name == service) * 2 + usize::from(name.starts_with(&versioned)), usize::from(similar), agreeing)
    };
    deployments
        .iter()
        .copied()
        .filter(|d| score(d) != (0, 0, 0))
        .max_by_key(|d| (score(d), std::cmp::Reverse(d.metadata.name.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_near_and_another_word_is_not() {
        assert_eq!(distance("productpage", "productpge"), 1);
        assert_eq!(name("productpge", ["details", "productpage"].into_iter()), Some("productpage"));
        assert_eq!(name("productpage", ["details", "grafana"].into_iter()), None);
    }
}
