//! Paths in an image, as text.

/// A path against a directory: absolute, without `.` and `..`.
pub(super) fn absolute(directory: &str, path: &str) -> String {
    let whole = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{directory}/{path}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The destination of a copy: a slash at its end says that it is a directory, and is kept; `.` and nothing at all are one.
pub(super) fn destination(directory: &str, path: &str) -> String {
    let mut whole = absolute(directory, path);
    let is_directory = path.is_empty() || path.ends_with('/') || path == "." || path.ends_with("/.");
    if is_directory && !whole.ends_with('/') {
        whole.push('/');
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_absolute() {
        assert_eq!(absolute("/a", "b/../../c"), "/c");
        assert_eq!(absolute("/a", "/b//c/."), "/b/c");
        assert_eq!(absolute("", "../.."), "/");
        assert_eq!(destination("/a", "."), "/a/");
        assert_eq!(destination("/a", "b/"), "/a/b/");
        assert_eq!(destination("/a", "b"), "/a/b");
        assert_eq!(destination("/", "./"), "/");
        assert_eq!(destination("/a", ""), "/a/");
    }
}
