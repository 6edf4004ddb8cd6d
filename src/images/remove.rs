//! `remove`: takes names away, and deletes an image with its last one. Docker's rules.

use std::sync::Arc;

use super::local::{LocalImages, LocalImagesParts, remove_unreferenced};
use super::lookup::{find_all, fitting};
use super::{RemoveImageOptions, Removed};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::store::{Node, NodeKind, Store};
use crate::types::{Digest, ImageId, Reference};

/// What a removal comes to.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    untag: Vec<Reference>,
    delete: bool,
}

/// What was done.
struct Done {
    id: ImageId,
    untagged: Vec<Reference>,
    deleted: bool,
    freed: Vec<Node>,
}

impl LocalImages {
    pub(super) async fn remove_named(&self, image: &str, options: RemoveImageOptions) -> Result<Vec<Removed>> {
        let (image, parts) = (image.to_owned(), Arc::clone(&self.parts));
        // One blocking piece of work, which a caller that goes away does not cut off.
        let all = self
            .parts
            .store
            .call(move |store| remove(store, &parts, &image, &options))
            .await?;
        let mut out = Vec::new();
        for done in all {
            for name in done.untagged {
                self.tell("untag", done.id, Some(&name)).await;
                let untagged = Removed::Untagged(name);
                if !out.contains(&untagged) {
                    out.push(untagged);
                }
            }
            if done.deleted {
                self.tell("delete", done.id, None).await;
                out.push(Removed::Deleted(done.id));
            }
            let layers = done.freed.iter().filter(|node| node.kind == NodeKind::Snapshot);
            out.extend(
                layers
                    .filter_map(|node| node.id.parse::<Digest>().ok())
                    .map(Removed::DeletedLayer),
            );
        }
        Ok(out)
    }
}

/// One image for each platform that the name stands for. Each is looked at before any is touched.
fn remove(store: &Store, parts: &LocalImagesParts, image: &str, options: &RemoveImageOptions) -> Result<Vec<Done>> {
    let (all, name) = find_all(store, image)?;
    let mut plans = Vec::new();
    for one in fitting(all, options.platform.as_ref(), image)? {
        let id = one.record.id;
        let names = store.image_names(&id)?;
        let user = store.holders(&Node::image(&id))?.into_iter().next();
        let plan = plan(image, &names, name.as_ref(), user.as_ref(), options.force)?;
        plans.push((id, plan));
    }
    let do_it = |(id, plan)| do_one(store, parts, id, plan, options.force);
    plans.into_iter().map(do_it).collect()
}

fn do_one(store: &Store, parts: &LocalImagesParts, id: ImageId, plan: Plan, force: bool) -> Result<Done> {
    let mut free = Vec::new();
    for name in &plan.untag {
        free.extend(store.untag_from(name, Some(&id))?.1);
    }
    let needs = if plan.delete { delete(store, &id, force)? } else { None };
    let deleted = needs.is_some();
    free.extend(needs.unwrap_or_default());
    Ok(Done {
        id,
        untagged: plan.untag,
        deleted,
        freed: remove_unreferenced(store, parts, free)?,
    })
}

/// Deletes the record, unless somebody began to use it since the plan was made and force says that the names were enough.
fn delete(store: &Store, id: &ImageId, force: bool) -> Result<Option<Vec<Node>>> {
    match store.delete_image(id) {
        Ok(needs) => Ok(Some(needs)),
        Err(error) if error.is_conflict() && force => Ok(None),
        Err(error) => Err(error),
    }
}

/// Decides what goes. Pure. `names` are all of the image's, `by` the one it was given by, `user` who uses it.
fn plan(image: &str, names: &[Reference], by: Option<&Reference>, user: Option<&Node>, force: bool) -> Result<Plan> {
    let untag = match by {
        Some(name) => with_its_digests(names, name),
        None if is_one_name(names) || force => names.to_vec(),
        None => {
            return Err(conflict(
                image,
                "it has several names: remove them one by one, or force it",
            ));
        }
    };
    let last = untag.len() == names.len();
    match user {
        Some(user) if last && (!force || untag.is_empty()) => Err(in_use(image, user)),
        Some(_) => Ok(Plan { untag, delete: false }),
        None => Ok(Plan { untag, delete: last }),
    }
}

/// A tag, and with the last tag of a repository also its names by digest.
fn with_its_digests(names: &[Reference], name: &Reference) -> Vec<Reference> {
    let same = |other: &&Reference| other.host() == name.host() && other.repository() == name.repository();
    let other_tags = names
        .iter()
        .filter(same)
        .any(|other| other != name && other.digest().is_none());
    if name.digest().is_some() || other_tags {
        return vec![name.clone()];
    }
    names.iter().filter(same).cloned().collect()
}

/// One tag at most, and everything in one repository.
fn is_one_name(names: &[Reference]) -> bool {
    let tags = names.iter().filter(|name| name.digest().is_none()).count();
    let one_repository = names
        .windows(2)
        .all(|pair| pair[0].familiar_repository() == pair[1].familiar_repository());
    tags <= 1 && one_repository
}

fn in_use(image: &str, user: &Node) -> Error {
    let short: String = user.id.chars().take(12).collect();
    conflict(image, &format!("{} {short} uses it", user.kind.as_str()))
}

fn conflict(image: &str, why: &str) -> Error {
    Error::new(ErrorKind::Conflict, format!("cannot remove the image {image}: {why}"))
        .with_object(ObjectKind::Image, image)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Vec<Reference> {
        texts
            .iter()
            .map(|text| text.replace("@d", &format!("@{}", Digest::of(b"d"))).parse().unwrap())
            .collect()
    }

    #[test]
    fn docker_s_rules() {
        // All names, by which one, whether a container uses it, force; what is untagged, whether it is deleted.
        type Row<'a> = (
            &'a [&'a str],
            Option<&'a str>,
            bool,
            bool,
            Option<(&'a [&'a str], bool)>,
        );
        let table: &[Row<'_>] = &[
            (
                &["a:1", "a@d"],
                Some("a:1"),
                false,
                false,
                Some((&["a:1", "a@d"], true)),
            ),
            (
                &["a:1", "a:2", "a@d"],
                Some("a:1"),
                false,
                false,
                Some((&["a:1"], false)),
            ),
            (&["a:1", "b:1"], Some("a:1"), true, false, Some((&["a:1"], false))),
            (&["a:1"], Some("a:1"), true, false, None),
            (&["a:1"], Some("a:1"), true, true, Some((&["a:1"], false))),
            (&["a@d"], Some("a@d"), false, false, Some((&["a@d"], true))),
            (&["a:1", "a@d"], Some("a@d"), false, false, Some((&["a@d"], false))),
            (&["a:1", "a@d"], None, false, false, Some((&["a:1", "a@d"], true))),
            (&["a:1", "a:2"], None, false, false, None),
            (&["a:1", "b@d"], None, false, false, None),
            (&["a:1", "b:2"], None, false, true, Some((&["a:1", "b:2"], true))),
            (&["a:1", "b:2"], None, true, true, Some((&["a:1", "b:2"], false))),
            (&[], None, false, false, Some((&[], true))),
            (&[], None, true, false, None),
            (&[], None, true, true, None),
        ];
        let user = Node::new(NodeKind::Container, "0123456789abcdef");
        for (all, by, used, force, expected) in table {
            let by = by.map(|name| names(&[name]).remove(0));
            let is = plan("x", &names(all), by.as_ref(), used.then_some(&user), *force);
            match expected {
                Some((untag, delete)) => assert_eq!(
                    is.unwrap(),
                    Plan {
                        untag: names(untag),
                        delete: *delete
                    },
                    "{all:?} {by:?}"
                ),
                None => assert!(is.unwrap_err().is_conflict(), "{all:?} {by:?}"),
            }
        }
        let error = plan("x", &[], None, Some(&user), false).unwrap_err();
        assert!(error.to_string().contains("container 0123456789ab"), "{error}");
    }
}
