//! Shims of earlier versions: `tests/old/README.md`.

use super::*;
use crate::sys::memfd;

const FIRST: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/old/shim-1-x86_64"));

#[tokio::test]
async fn g16_a_shim_of_the_first_protocol_is_understood() {
    let home = Home::new();
    let old = NativeRuntime::with_shim(memfd::program(c"longshore", FIRST).unwrap());
    let script = "while ! [ -e /tmp/go ]; do sleep 0.05; done; echo over; exit 7";
    let starter = old.start_detached(home.launch(script), home.detach()).await.unwrap();
    drop((starter, old));
    // Somebody of this version comes.
    let task = runtime().adopt(&ContainerId::random(), &home.shim()).await.unwrap();
    let state = task.state();
    assert_eq!(state.phase, DetachedPhase::Running);
    assert!(
        !task.is_probed() && state.health.is_none(),
        "its health is the business of engines"
    );
    assert_eq!(home.seen(), DetachedSeen::Alive(state));
    let mut output = task.output().await.unwrap();
    let_go(&task).await;
    let first = futures_util::StreamExt::next(&mut output).await;
    assert_eq!(first.map(|(_, bytes)| bytes.to_vec()), Some(b"over\n".to_vec()));
    assert_eq!(task.wait().await.unwrap().status.code(), 7);
    left_alone(&home, &ended(&task).await).await;
    assert_eq!(home.logged(), ("over\n".into(), String::new(), 1));
}
