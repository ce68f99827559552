//! The example from beginning to end, with two seconds of training.

use std::process::Command;

#[test]
fn it_trains_stops_goes_on_and_draws() {
    let out = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("library.png");
    let _ = std::fs::remove_file(&out);
    let run = Command::new(env!("CARGO_BIN_EXE_library")).arg(&out).arg("2").output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{text}{errors}");
    for part in ["stopped from another thread", "lsgm step", "NELBO", "are latents [4, ", "prior alone"] {
        assert!(text.contains(part), "`{part}` is missing in\n{text}");
    }
    assert!(std::fs::read(&out).unwrap().starts_with(b"\x89PNG"));
}
