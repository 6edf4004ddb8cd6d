//! Users and groups, looked up in the container's own files.

use super::{launch, root, run, single};
use crate::error::ErrorKind;
use crate::runtime::native;

#[tokio::test]
async fn users_come_from_the_container() {
    if single() {
        return;
    }
    let root = root();
    for (user, expected) in [
        (
            "alice",
            "uid=1000(alice) gid=1001(alice) groups=10(wheel),1001(alice)\n/home/alice\n",
        ),
        (
            "1000:10",
            "uid=1000(alice) gid=10(wheel) groups=10(wheel)\n/home/alice\n",
        ),
        ("4242", "uid=4242 gid=0(root) groups=0(root)\n/\n"),
    ] {
        let mut launch = launch(
            root.path(),
            &["sh", "-c", "id; echo $HOME; echo fine > /proc/self/fd/1"],
        );
        launch.user = Some(user.to_owned());
        let output = run(launch).await.unwrap();
        let text = output.stdout.strip_suffix("fine\n").unwrap_or(&output.stderr);
        assert_eq!(
            text.replace(" groups=1001(alice),10(wheel)", " groups=10(wheel),1001(alice)"),
            expected
        );
    }
}

#[tokio::test]
async fn unknown_users_are_named() {
    let root = root();
    for (user, kind) in [
        ("mallory", ErrorKind::NotFound),
        ("0x0", ErrorKind::NotFound),
        ("1:2:3", ErrorKind::InvalidArgument),
    ] {
        let mut launch = launch(root.path(), &["id"]);
        launch.user = Some(user.to_owned());
        let error = run(launch).await.err().unwrap();
        assert_eq!(error.kind(), &kind, "{}", error.report());
        assert!(error.to_string().contains(user), "{error}");
    }
}

#[test]
fn users_are_parsed_strictly() {
    use native::helper::passwd::{Problem, user};
    let passwd = b"root:x:0:0:r:/root:/bin/sh\nbad:x:0x:0\n12:x:7:8::/h:\nnul:x:1\x00:1\nlong:x:99999999999:0\n";
    assert_eq!(user(b"12", passwd, b"").unwrap().uid, 7);
    assert_eq!(user(b"", passwd, b"").unwrap().home, Some(b"/root".as_slice()));
    for (text, problem) in [
        (b"bad".as_slice(), Problem::Unknown),
        (b"nul", Problem::Unknown),
        (b"long", Problem::Unknown),
        (b"1000x", Problem::Unknown),
        (b"99999999999", Problem::Malformed),
        (b"0:1:2", Problem::Malformed),
        (b"0\n", Problem::Malformed),
        (b"0:nogroup", Problem::Unknown),
    ] {
        assert_eq!(
            user(text, passwd, b"").unwrap_err(),
            problem,
            "{}",
            String::from_utf8_lossy(text)
        );
    }
}

#[tokio::test]
async fn a_masked_file_of_users_is_none() {
    let root = root();
    let mut launch = launch(root.path(), &["sh", "-c", "id -u; cat /etc/passwd | wc -c"]);
    let linux = launch.spec.linux_mut().as_mut().unwrap();
    linux.set_masked_paths(Some(vec!["/etc/passwd".to_owned(), "/no/such/file".to_owned()]));
    linux.set_readonly_paths(Some(vec!["/tmp".to_owned(), "/etc/passwd/below".to_owned()]));
    let output = run(launch).await.unwrap();
    assert_eq!(output.stdout, "0\n0\n", "{}", output.stderr);
}
