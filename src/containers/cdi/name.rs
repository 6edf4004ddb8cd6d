//! Names of CDI devices: `vendor.com/class=name`. Source: the Container Device Interface, SPEC.md, "Kind" and "devices".

use crate::error::{Error, ObjectKind, Result};

/// Whether a word is a device's whole name: vendor, class and device, each as the specification has them.
#[cfg(feature = "api")]
pub(crate) fn is_name(text: &str) -> bool {
    check_name(text).is_ok()
}

/// # Errors
/// `InvalidArgument` with what is wrong.
pub(crate) fn check_name(text: &str) -> Result<()> {
    let bad = |why: &str| {
        let message = format!("{text:?} is no name of a CDI device, vendor.com/class=name: {why}");
        Error::invalid(message).with_object(ObjectKind::CdiDevice, text)
    };
    let (kind, device) = text.split_once('=').ok_or_else(|| bad("it has no ="))?;
    check_kind(kind).map_err(bad)?;
    check_device(device).map_err(bad)
}

/// `vendor.com/class`.
pub(super) fn check_kind(kind: &str) -> std::result::Result<(), &'static str> {
    let (vendor, class) = kind.split_once('/').ok_or("it has no class")?;
    if !is_word(vendor, |c| c.is_ascii_alphabetic(), "_-.") {
        return Err("its vendor begins with a letter, ends with a letter or a digit, and may have _, - and . between");
    }
    if !is_word(class, |c| c.is_ascii_alphabetic(), "_-.") {
        return Err("its class begins with a letter, ends with a letter or a digit, and may have _, - and . between");
    }
    Ok(())
}

/// What is behind the `=`.
pub(super) fn check_device(name: &str) -> std::result::Result<(), &'static str> {
    if !is_word(name, |c| c.is_ascii_alphanumeric(), "_-.:") {
        return Err("a device begins and ends with a letter or a digit, and may have _, -, . and : between");
    }
    Ok(())
}

fn is_word(text: &str, first: fn(&char) -> bool, between: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || between.contains(c);
    text.chars().next().is_some_and(|c| first(&c))
        && text.chars().last().is_some_and(|c| c.is_ascii_alphanumeric())
        && text.chars().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h9_names_of_devices() {
        for good in [
            "vendor.com/class=name",
            "v/c=0",
            "a-b.c/d_e.f=1:2.3-x",
            "nvidia.com/gpu=all",
        ] {
            check_name(good).unwrap();
        }
        for bad in [
            "",
            "/dev/null",
            "vendor.com/class",
            "vendor.com=x",
            "/class=x",
            "1v/c=x",
            "v/1c=x",
            "v/c=",
            "v/c=-x",
            "v/c=x-",
            "v./c=x",
            "v/c/d=x",
            "v/c=x y",
            "v/c=*",
            "v/c=a=b",
            "../c=x",
        ] {
            let error = check_name(bad).unwrap_err();
            assert_eq!(error.object(), Some((ObjectKind::CdiDevice, bad)), "{error}");
        }
    }
}
