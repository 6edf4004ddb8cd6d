//! "Did you mean": the nearest of the names that would have been right.

/// Edits beyond which two names are not a slip of the fingers; BuildKit and HCL take the same.
const FAR: usize = 3;
/// Longer names are not compared.
const LONG: usize = 64;

/// The name nearest to what was written, if one is near. Where only the case differs, that is near too.
pub(crate) fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    search(&written.to_lowercase(), names, str::to_lowercase)
}

/// The same for variables, where case matters.
pub(crate) fn nearest_variable<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    search(written, names, str::to_owned)
}

fn search<'a>(
    written: &str,
    names: impl IntoIterator<Item = &'a str>,
    same: impl Fn(&str) -> String,
) -> Option<&'a str> {
    if written.is_empty() || written.len() > LONG {
        return None;
    }
    let mut best = None;
    let mut least = FAR;
    for name in names {
        if name.len() > LONG || name.len().abs_diff(written.len()) >= FAR {
            continue;
        }
        let distance = distance(written, &same(name));
        if distance < least && distance < written.chars().count() {
            least = distance;
            best = Some(name);
        }
    }
    best
}

/// Letters to insert, remove or replace until the one is the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let names = ["FROM", "RUN", "COPY", "ENTRYPOINT"];
        assert_eq!(nearest("FORM", names), Some("FROM"));
        assert_eq!(nearest("runn", names), Some("RUN"));
        assert_eq!(nearest("ENTRYPIONT", names), Some("ENTRYPOINT"));
        assert_eq!(nearest("copy", names), Some("COPY"));
        assert_eq!(nearest("INCLUDE", names), None);
        assert_eq!(nearest("X", names), None, "nothing of what was written is left");
        assert_eq!(nearest_variable("home", ["HOME"]), None);
        assert_eq!(nearest_variable("HOM", ["HOME"]), Some("HOME"));
        assert_eq!(nearest("", names), None);
        assert_eq!(nearest(&"R".repeat(1000), names), None);
    }
}
