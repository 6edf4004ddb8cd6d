//! An async program that does nothing.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::env::args().nth(1).ok_or("a directory is missing")?;
    println!("{root}");
    resident();
    Ok(())
}

include!("../resident.rs");
