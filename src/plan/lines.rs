//! Changes of single settings in the text of a YAML file that people write: what else stands in it stays as it is.

/// The text with `key: value` at its top level, in place of what stood under that key.
pub fn set(text: &str, key: &str, value: &str) -> String {
    let line = format!("{key}: {value}");
    let mut out: Vec<&str> = Vec::new();
    let (mut done, mut within) = (false, false);
    for old in text.lines() {
        if is_key(old, key) {
            if !done {
                out.push(&line);
            }
            (done, within) = (true, true);
        } else if !(within && continues(old)) {
            within = false;
            out.push(old);
        }
    }
    if !done {
        out.push(&line);
    }
    joined(&out, text)
}

/// The same for keys within a block of the top level.
pub fn set_within(text: &str, block: &str, entries: &[(&str, &str)]) -> String {
    let fresh: Vec<String> = entries.iter().map(|(key, value)| format!("  {key}: {value}")).collect();
    let head = format!("{block}:");
    let mut out: Vec<&str> = Vec::new();
    let (mut done, mut within) = (false, false);
    for old in text.lines() {
        if is_key(old, block) {
            // A block that stands for nothing, or in braces on the line itself, is written anew.
            out.push(&head);
            out.extend(fresh.iter().map(String::as_str));
            (done, within) = (true, true);
        } else if within && continues(old) {
            let replaced = entries.iter().any(|(key, _)| is_key(old.trim_start(), key));
            if !replaced {
                out.push(old);
            }
        } else {
            within = false;
            out.push(old);
        }
    }
    if !done {
        out.push(&head);
        out.extend(fresh.iter().map(String::as_str));
    }
    joined(&out, text)
}

/// The value of the first line `key: …` at any depth replaced.
pub fn replace_value(text: &str, key: &str, value: &str) -> String {
    let mut done = false;
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let bare = line.trim_start().trim_start_matches("- ");
            if done || !is_key(bare, key) {
                return line.to_owned();
            }
            done = true;
            format!("{}{key}: {value}", &line[..line.len() - bare.len()])
        })
        .collect();
    joined(&lines.iter().map(String::as_str).collect::<Vec<_>>(), text)
}

/// The text without its line of that number, counted from one.
pub fn without_line(text: &str, number: usize) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let at = number.checked_sub(1).filter(|at| *at < lines.len())?;
    let kept: Vec<&str> = lines.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, line)| *line).collect();
    Some(joined(&kept, text))
}

fn is_key(line: &str, key: &str) -> bool {
    line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':'))
}

/// Indented, or an item of a list, which need not be.
fn continues(line: &str) -> bool {
    line.starts_with([' ', '\t', '-'])
}

fn joined(lines: &[&str], text: &str) -> String {
    let end = if text.ends_with('\n') || text.is_empty() { "\n" } else { "" };
    lines.join("\n") + end
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "bindAddress: 0.0.0.0\nconntrack:\n  maxPerCore: null\n  min: null\n  tcpCloseWaitTimeout: null\nkind: KubeProxyConfiguration\nmode: \"\"\nnodePortAddresses:\n- 192.168.0.0/16\noomScoreAdj: null\n";

    #[test]
    fn one_setting_changes_and_the_rest_stays() {
        assert_eq!(set(CONFIG, "mode", "iptables"), CONFIG.replace("mode: \"\"", "mode: iptables"));
        let open = set(CONFIG, "nodePortAddresses", "[]");
        assert_eq!(open, CONFIG.replace("nodePortAddresses:\n- 192.168.0.0/16\n", "nodePortAddresses: []\n"));
        assert_eq!(set("kind: x", "mode", "a"), "kind: x\nmode: a");
        assert_eq!(set("modes: x\n", "mode", "a"), "modes: x\nmode: a\n");
    }

    #[test]
    fn a_block_keeps_its_other_keys() {
        let entries = [("maxPerCore", "0"), ("min", "0")];
        let expected = CONFIG.replace("maxPerCore: null\n  min: null", "maxPerCore: 0\n  min: 0");
        assert_eq!(set_within(CONFIG, "conntrack", &entries), expected);
        let added = "kind: x\nconntrack:\n  maxPerCore: 0\n  min: 0\n";
        assert_eq!(set_within("kind: x\n", "conntrack", &entries), added);
        assert_eq!(set_within("kind: x\nconntrack: null\n", "conntrack", &entries), added);
    }

    #[test]
    fn a_value_deep_inside_is_replaced_where_it_stands() {
        let text = "clusters:\n- cluster:\n    server: https://10.0.0.99:6443 # api\n  name: default\n";
        let expected = "clusters:\n- cluster:\n    server: https://10.0.0.10:6443\n  name: default\n";
        assert_eq!(replace_value(text, "server", "https://10.0.0.10:6443"), expected);
        assert_eq!(replace_value("- server: a\n", "server", "b"), "- server: b\n");
    }

    #[test]
    fn a_line_is_counted_from_one() {
        assert_eq!(without_line("a: 1\nb c\n", 2).as_deref(), Some("a: 1\n"));
        assert_eq!(without_line("a: 1\n", 2), None);
        assert_eq!(without_line("a: 1\n", 0), None);
    }
}
