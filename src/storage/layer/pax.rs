//! PAX extended headers: `"%d %s=%s\n"` records. Source: POSIX.1-2017 pax(1), "pax Extended Header"; GNU tar manual,
//! "PAX Format, Versions 0.0, 0.1 and 1.0" of sparse files; `SCHILY.xattr.` is star's and what image builders write.

use super::tar::bad;
use crate::error::Result;

/// What the records of one entry say. An empty value takes back an earlier one.
#[derive(Debug, Default, Clone)]
pub(crate) struct Records {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) mtime: Option<(i64, u32)>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse: Option<Sparse>,
    any: bool,
}

/// A sparse file as PAX tells it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sparse {
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) map: Vec<(u64, u64)>,
    /// Format 1.0: the map is in the data.
    pub(crate) in_data: bool,
    offset: Option<u64>,
}

impl Records {
    pub(crate) fn is_empty(&self) -> bool {
        !self.any
    }

    /// Takes all records of a header.
    pub(crate) fn parse(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.any = true;
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes)?;
            self.take(key, value)?;
            bytes = rest;
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            b"path" => self.path = text(value)?,
            b"linkpath" => self.link = text(value)?,
            b"size" => self.size = decimal(value)?,
            b"uid" => self.uid = decimal(value)?,
            b"gid" => self.gid = decimal(value)?,
            b"mtime" => self.mtime = time(value)?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    return self.take_xattr(name, value);
                }
                if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    return self.sparse.get_or_insert_default().take(name, value);
                }
            }
        }
        Ok(())
    }

    fn take_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        // XATTR_NAME_MAX and XATTR_SIZE_MAX of the kernel.
        if name.is_empty() || name.len() > 255 || name.contains(&0) || value.len() > 65536 {
            return Err(bad("an extended attribute that no file can have"));
        }
        self.xattrs.retain(|(known, _)| known != name);
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }
}

impl Sparse {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            b"name" => self.name = text(value)?,
            b"size" | b"realsize" => self.size = decimal(value)?,
            b"major" => self.in_data = value == b"1",
            b"offset" => self.offset = decimal(value)?,
            b"numbytes" => {
                let offset = self
                    .offset
                    .take()
                    .ok_or_else(|| bad("a sparse piece without its offset"))?;
                self.map.push((offset, decimal(value)?.unwrap_or(0)));
            }
            b"map" => self.map = pairs(value)?,
            _ => {}
        }
        Ok(())
    }
}

/// Splits the first record off.
fn record(bytes: &[u8]) -> Result<(&[u8], &[u8], &[u8])> {
    let malformed = || bad("a malformed PAX header");
    let space = bytes.iter().take(20).position(|&b| b == b' ').ok_or_else(malformed)?;
    let length = decimal(&bytes[..space])?.ok_or_else(malformed)?;
    let length = usize::try_from(length).map_err(|_| malformed())?;
    if length > bytes.len() || length < space + 3 || bytes[length - 1] != b'\n' {
        return Err(malformed());
    }
    let body = &bytes[space + 1..length - 1];
    let equals = body
        .iter()
        .position(|&b| b == b'=')
        .filter(|at| *at > 0)
        .ok_or_else(malformed)?;
    Ok((&body[..equals], &body[equals + 1..], &bytes[length..]))
}

fn text(value: &[u8]) -> Result<Option<Vec<u8>>> {
    if value.contains(&0) {
        return Err(bad("a NUL byte in a path"));
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

fn decimal(value: &[u8]) -> Result<Option<u64>> {
    if value.is_empty() {
        return Ok(None);
    }
    let digits = value.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value)
        .ok()
        .filter(|_| digits)
        .and_then(|text| text.parse().ok());
    number
        .map(Some)
        .ok_or_else(|| bad("a number in a PAX header that is none, or too large"))
}

/// Seconds with an optional sign and fraction; digits beyond nanoseconds are cut.
fn time(value: &[u8]) -> Result<Option<(i64, u32)>> {
    if value.is_empty() {
        return Ok(None);
    }
    let malformed = || bad("a malformed time in a PAX header");
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let dot = value.iter().position(|&b| b == b'.').unwrap_or(value.len());
    let seconds = decimal(&value[..dot])?.unwrap_or(0);
    let seconds = i64::try_from(seconds)
        .ok()
        .filter(|s| *s < 1 << 53)
        .ok_or_else(malformed)?;
    let fraction = value.get(dot + 1..).unwrap_or_default();
    let mut nanos = 0u32;
    for place in 0..9 {
        let digit = fraction.get(place).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return Err(malformed());
        }
        nanos = nanos * 10 + u32::from(digit - b'0');
    }
    Ok(Some(match (negative, nanos) {
        (false, nanos) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, nanos) => (-seconds - 1, 1_000_000_000 - nanos),
    }))
}

fn pairs(value: &[u8]) -> Result<Vec<(u64, u64)>> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let numbers = value
        .split(|&b| b == b',')
        .map(|part| decimal(part).map(|n| n.unwrap_or(0)));
    let numbers = numbers.collect::<Result<Vec<u64>>>()?;
    if numbers.len() % 2 != 0 {
        return Err(bad("a sparse map with an odd number of values"));
    }
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_taken_and_taken_back() {
        let mut records = Records::default();
        records.parse(b"12 path=a/b\n15 mtime=-1.25\n10 size=9\n").unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(records.mtime, Some((-2, 750_000_000)));
        assert_eq!(records.size, Some(9));
        records.parse(b"9 path=\n").unwrap_err();
        records.parse(b"8 path=\n").unwrap();
        assert_eq!(records.path, None);
    }

    #[test]
    fn malformed_records_are_refused() {
        for bytes in [
            &b"x"[..],
            b"5 a=b",
            b"99 path=a\n",
            b"6 a=b\nx",
            b"4 =\n\n",
            b"0 a=b\n",
            b"999999999999999999999 a=b\n",
        ] {
            assert!(Records::default().parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
