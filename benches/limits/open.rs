//! The least that opening a root can cost: its directory, two files in it, a lock, and a thread.
//!
//! The floor of the job `open`.

use std::fs;
use std::io;
use std::path::Path;

/// # Errors
/// Whatever the file system says.
pub fn open(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    let directory = fs::File::open(root)?;
    let mut files = Vec::new();
    for name in ["lock", "a", "b"] {
        files.push(
            fs::OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(root.join(name))?,
        );
    }
    files[0].lock()?;
    std::thread::spawn(|| {}).join().expect("no panic");
    drop(directory);
    Ok(())
}
