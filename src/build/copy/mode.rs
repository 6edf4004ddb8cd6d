//! `--chmod`: permissions in octal or as chmod(1) has them.
//!
//! Source: BuildKit, which takes octal digits up to 7777 and what `github.com/tonistiigi/dchapes-mode` parses (the BSDs'
//! `setmode(3)`), with a umask of zero.

use crate::error::{Error, Result};

const SETID: u32 = 0o6000;
const STICKY: u32 = 0o1000;
/// What letters for everybody stand for; `t` is apart.
const STANDARD: u32 = SETID | 0o777;

/// A change of permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Permissions {
    Octal(u32),
    Symbolic(Vec<Change>),
}

/// One thing to do to permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Set(u32),
    Clear(u32),
    /// For directories, and for what anybody may execute.
    SetIfExecutable(u32),
    /// From one class, given by its shift, to others.
    Copy {
        from: u32,
        to: [bool; 3],
        how: u8,
    },
}

impl Permissions {
    /// # Errors
    /// `InvalidArgument`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let bad = || {
            let message =
                format!("invalid --chmod={text:?}: octal digits between 0 and 7777, or as in chmod(1): u=rwX,go=rX");
            Error::invalid(message)
        };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            return mode.map(Self::Octal).ok_or_else(bad);
        }
        symbolic(text.as_bytes()).map(Self::Symbolic).ok_or_else(bad)
    }

    /// What a file's permissions become.
    pub(super) fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let changes = match self {
            Self::Octal(mode) => return *mode,
            Self::Symbolic(changes) => changes,
        };
        let mut new = mode;
        for change in changes {
            match *change {
                Change::Set(bits) => new |= bits,
                Change::Clear(bits) => new &= !bits,
                Change::SetIfExecutable(bits) if is_dir || mode & 0o111 != 0 => new |= bits,
                Change::SetIfExecutable(_) => {}
                Change::Copy { from, to, how } => new = copied(new, from, to, how),
            }
        }
        new
    }

    /// What directories that are made on the way get.
    pub(super) fn of_parents(&self) -> u32 {
        match self {
            Self::Octal(mode) => mode & 0o777,
            Self::Symbolic(_) => 0o755,
        }
    }
}

fn copied(mode: u32, from: u32, to: [bool; 3], how: u8) -> u32 {
    let value = mode >> from & 0o7;
    let mut new = mode;
    for (shift, wanted) in [6, 3, 0].into_iter().zip(to) {
        if !wanted {
            continue;
        }
        match how {
            b'+' => new |= value << shift,
            b'-' => new &= !(value << shift),
            _ => new = new & !(0o7 << shift) | value << shift,
        }
    }
    new
}

fn symbolic(mut text: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    loop {
        let mut who = 0;
        loop {
            who |= match text.first()? {
                b'a' => STANDARD,
                b'u' => 0o4700,
                b'g' => 0o2070,
                b'o' => 0o007,
                _ => break,
            };
            text = &text[1..];
        }
        loop {
            let (how, rest) = text.split_first()?;
            if !matches!(how, b'+' | b'-' | b'=') {
                return None;
            }
            text = clause(*how, who, rest, &mut changes);
            if text.is_empty() {
                return Some(changes);
            }
            if text[0] == b',' {
                text = &text[1..];
                break;
            }
        }
    }
}

/// The letters behind one operator; returns what follows them.
fn clause<'a>(how: u8, mut who: u32, mut text: &'a [u8], changes: &mut Vec<Change>) -> &'a [u8] {
    let (mut bits, mut conditional) = (0, 0);
    // "Only others" have neither set-id nor sticky bits.
    let only_others = who != 0 && who & !0o007 == 0;
    let mut equal_done = false;
    loop {
        let letter = text.first().copied();
        match letter {
            Some(b'r') => bits |= 0o444,
            Some(b'w') => bits |= 0o222,
            Some(b'x') => bits |= 0o111,
            Some(b'X') if how != b'-' => conditional |= 0o111,
            Some(b'X') => bits |= 0o111,
            Some(b's') if !only_others => bits |= SETID,
            Some(b't') if !only_others => {
                // As written there, a bare `t` is then for nobody else.
                who |= STICKY;
                bits |= STICKY;
            }
            Some(b's' | b't') => {}
            Some(class @ (b'u' | b'g' | b'o')) => {
                if bits != 0 {
                    add(how, who, std::mem::take(&mut bits), changes);
                }
                equal_done |= how == b'=';
                if conditional != 0 {
                    add(b'X', who, std::mem::take(&mut conditional), changes);
                }
                let from = match class {
                    b'u' => 6,
                    b'g' => 3,
                    _ => 0,
                };
                let to = match who {
                    0 => [true; 3],
                    who => [who & 0o400 != 0, who & 0o040 != 0, who & 0o004 != 0],
                };
                changes.push(Change::Copy { from, to, how });
            }
            _ => break,
        }
        text = &text[1..];
    }
    if bits != 0 || how == b'=' && !equal_done {
        add(how, who, bits, changes);
    }
    if conditional != 0 {
        add(b'X', who, conditional, changes);
    }
    text
}

fn add(how: u8, who: u32, bits: u32, changes: &mut Vec<Change>) {
    let own = if who == 0 { bits } else { who & bits };
    match how {
        b'=' => {
            changes.push(Change::Clear(if who == 0 { STANDARD } else { who }));
            changes.push(Change::Set(own));
        }
        b'+' => changes.push(Change::Set(own)),
        b'-' => changes.push(Change::Clear(own)),
        _ => changes.push(Change::SetIfExecutable(own)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f3_permissions_are_as_chmod_has_them() {
        for (text, mode, is_dir, expected) in [
            ("644", 0o755, false, 0o644),
            ("0755", 0o600, true, 0o755),
            ("4755", 0o600, false, 0o4755),
            ("0", 0o755, false, 0),
            ("go-w", 0o666, false, 0o644),
            ("=rw,+X", 0o755, false, 0o777),
            ("=rw,+X", 0o644, false, 0o666),
            ("=rw,+X", 0o700, true, 0o777),
            ("+X", 0o644, false, 0o644),
            ("+X", 0o644, true, 0o755),
            ("u=rwx,go=rx", 0o600, false, 0o755),
            ("u=rwx,go=u-w", 0o000, false, 0o755),
            ("go=", 0o777, false, 0o700),
            ("g=u-w", 0o640, false, 0o640),
            ("u+s", 0o755, false, 0o4755),
            ("g+s", 0o755, true, 0o2755),
            ("+t", 0o777, true, 0o1777),
            ("o+s", 0o755, false, 0o755),
            ("a+r", 0o200, false, 0o644),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o666, false, 0o644),
            ("a-x", 0o777, false, 0o666),
            ("u-X", 0o755, false, 0o655),
            ("g=o", 0o604, false, 0o644),
        ] {
            let parsed = Permissions::parse(text).unwrap();
            let new = parsed.apply(mode, is_dir);
            assert_eq!(new, expected, "{text} on {mode:o}: {new:o}");
        }
    }

    #[test]
    fn f3_what_is_no_permission_is_refused() {
        for bad in [
            "", "8", "77777", "10000", "0x1", "u", "rwx", "u=rwx,", "u:x", "z+x", "u+q", "-1", "644x",
        ] {
            let error = Permissions::parse(bad).unwrap_err();
            assert!(error.to_string().contains("--chmod"), "{bad}: {error}");
        }
        assert_eq!(Permissions::parse("u=rw").unwrap().of_parents(), 0o755);
        assert_eq!(Permissions::parse("4640").unwrap().of_parents(), 0o640);
    }
}
