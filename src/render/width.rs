//! Columns of a terminal: a Hangul syllable takes two cells, so nothing here counts characters.

use unicode_width::UnicodeWidthStr;

/// Text for people is broken at this many cells. Commands never are: they are copied.
pub const WIDTH: usize = 80;

/// How many cells the text takes.
pub fn cells(text: &str) -> usize {
    text.width()
}

/// The text, filled with spaces up to `width` cells.
pub fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(cells(text))))
}

/// Breaks a sentence at spaces into lines of at most `width` cells. The first line has `lead` before it, the others
/// as many spaces. A word that is too long for a line stays whole.
pub fn wrap(lead: &str, text: &str, width: usize) -> Vec<String> {
    let indent = cells(lead);
    let mut lines = Vec::new();
    for paragraph in text.trim_end().lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            let taken = indent + cells(&line);
            if !line.is_empty() && taken + 1 + cells(word) > width {
                lines.push(std::mem::take(&mut line));
            } else if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    let dressed = |(at, line): (usize, String)| match at {
        0 => format!("{lead}{line}"),
        _ => format!("{}{line}", " ".repeat(indent)),
    };
    lines.into_iter().enumerate().map(dressed).map(|line| line.trim_end().to_owned()).collect()
}

/// Rows as a table, three spaces between the columns as kubectl writes them. The last column is not filled up.
pub fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cells(cell)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| pad(cell, *width)).collect();
        cells.join("   ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hangul_takes_two_cells() {
        assert_eq!(cells("노드 a"), 6);
        assert_eq!(pad("노드", 6), "노드  ");
        assert_eq!(pad("too long", 3), "too long");
    }

    #[test]
    fn sentences_break_at_spaces_and_hang() {
        let lines = wrap(" = 근거: ", "가나다 라마바 사아자 차카타 파하", 22);
        assert_eq!(lines, [" = 근거: 가나다 라마바", "         사아자 차카타", "         파하"]);
        assert!(lines.iter().all(|line| cells(line) <= 22));
        assert_eq!(wrap("", "one-word-that-is-too-long", 5), ["one-word-that-is-too-long"]);
    }

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [vec!["TARGET".to_owned(), "PATH".into()], vec!["노드".to_owned(), "없음".into()]];
        assert_eq!(table(&rows), ["TARGET   PATH", "노드     없음"]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost_by_wrapping(text in "[가-힣a-z ]{0,120}", width in 10usize..80) {
            let joined: Vec<String> = wrap("", &text, width).iter().map(|l| l.trim().to_owned()).collect();
            let words = |t: &str| t.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            proptest::prop_assert_eq!(words(&joined.join(" ")), words(&text));
        }
    }
}
