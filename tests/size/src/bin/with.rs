//! The same program, with an engine that runs a container.

use longshore::{ContainerSpec, Engine};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::env::args().nth(1).ok_or("a directory is missing")?;
    let engine = Engine::open(&root).await?;
    // Without an image, opening is all that is measured.
    if let Some(image) = std::env::args().nth(2) {
        let output = engine
            .run(ContainerSpec::image(image).command(["true"]))
            .output()
            .await?;
        println!("{}", output.status);
    }
    resident();
    // Whoever opens the root next is to find it as it is, and not an engine to clear up after, which takes more.
    engine.close().await;
    Ok(())
}

include!("../resident.rs");
