//! The entries of an image index, read with the tolerance that the specification asks for. Pure.

use serde::Deserialize;

use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::types::Descriptor;

/// More entries than any index needs.
pub(crate) const MAX_ENTRIES: usize = 4096;

/// The entries of an index or manifest list. An entry that this crate cannot use (another digest algorithm, say) is left
/// out, since it may well be for somebody else.
///
/// # Errors
/// `InvalidArgument` where the document is no index at all, or has an absurd number of entries.
pub(crate) fn entries(bytes: &[u8]) -> Result<Vec<Descriptor>> {
    let index: Index =
        serde_json::from_slice(bytes).map_err(|error| bad("it is not an image index").with_source(error))?;
    if index.schema_version != 2 {
        return Err(bad("its schemaVersion is not 2"));
    }
    if index.manifests.len() > MAX_ENTRIES {
        return Err(bad("it has too many entries"));
    }
    Ok(index
        .manifests
        .into_iter()
        .filter_map(|entry| serde_json::from_value(entry).ok())
        .collect())
}

/// How many entries there are, of whatever kind.
///
/// # Errors
/// As [`entries`].
pub(crate) fn count(bytes: &[u8]) -> Result<usize> {
    let index: Index =
        serde_json::from_slice(bytes).map_err(|error| bad("it is not an image index").with_source(error))?;
    Ok(index.manifests.len())
}

/// The media type that a document gives itself.
pub(crate) fn media_type(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: String,
    }
    let typed: Typed = serde_json::from_slice(bytes).ok()?;
    Some(typed.media_type).filter(|text| is_index(text))
}

/// Whether a media type is that of an index or manifest list.
pub(crate) fn is_index(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json"
    )
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u64,
    manifests: Vec<serde_json::Value>,
}

fn bad(why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("the image index is unusable: {why}"),
    )
    .with_object(ObjectKind::Manifest, "index")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Digest;

    #[test]
    fn unusable_entries_are_left_out() {
        let good = format!(
            r#"{{"mediaType":"m","digest":"{}","size":3,"platform":{{"os":"linux","architecture":"amd64","os.version":"1"}}}}"#,
            Digest::of(b"a")
        );
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{good},{{"mediaType":"m","digest":"sha512:00","size":3}},{{"size":-1}},7]}}"#
        );
        let found = entries(text.as_bytes()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].size, 3);
    }

    #[test]
    fn other_documents_are_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"schemaVersion":1,"manifests":[]}"#,
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":2,"manifests":{}}"#,
        ] {
            assert_eq!(
                entries(text.as_bytes()).unwrap_err().kind(),
                &ErrorKind::InvalidArgument,
                "{text}"
            );
        }
    }
}
