//! A stock Linux kernel moves the cartridges of a library: the `ch` driver, mtx, and Bacula's `btape autochanger`.

use offhost_tests::guest::{MINUTE, images, logged_in};
use offhost_tests::skip;

#[test]
fn mtx_and_btape_work_with_a_library() {
    let images = match images() {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--library", "shelf:256MiB,drives=2,slots=6,mail=1,cartridges=3"];
    let (_target, mut guest) = logged_in(images, folder.path(), &flags);
    guest.run(MOVE, 2 * MINUTE).unwrap();
    let said = guest.run(BTAPE, 4 * MINUTE).unwrap();
    assert!(said.contains("The test autochanger worked!!"), "{said}");
    // What a drive says when its cartridge has been changed, and when it has none; and that a drive's address is not told in
    // the form of parallel SCSI, which SMC-3 has made obsolete.
    guest.log_out(&["Not Ready", "Medium not present", "Unit Attention", "medium may have changed", "ID/LUN unknown"]);
}

/// Every cartridge is found by its label wherever mtx has put it; what is written stays with the cartridge.
const MOVE: &str = r#"
    changer=$(device 0 scsi_generic) first=$(device 1 scsi_tape) second=$(device 2 scsi_tape)
    [ -c "$(device 0 scsi_changer)" ]
    mtx -f "$changer" inquiry
    mtx -f "$changer" inventory
    mtx -f "$changer" status
    label() { mtx -f "$changer" status | sed -n "s/.*$1:Full.*VolumeTag *= *\([A-Z0-9]*\).*/\1/p"; }
    one=$(label 'Storage Element 1')
    [ -n "$one" ]
    mtx -f "$changer" load 1 0
    [ "$(label 'Data Transfer Element 0')" = "$one" ]
    ready() { mt -f "$1" status | grep ONLINE; }
    await 30 ready "$first"
    tar -C /usr/bin -cf "$first" bash
    mt -f "$first" offline
    mtx -f "$changer" unload 4 0
    [ "$(label 'Storage Element 4')" = "$one" ]
    mtx -f "$changer" load 4 1
    await 30 ready "$second"
    tar -C /usr/bin -df "$second"
    mt -f "$second" offline
    mtx -f "$changer" unload 4 1
    mtx -f "$changer" transfer 4 1
    [ "$(label 'Storage Element 1')" = "$one" ]
    ! mtx -f "$changer" load 5 0 || die 'loaded from an empty slot'
"#;

const BTAPE: &str = r#"
    mkdir -p /tmp/bacula
    printf '%s\n' 'Storage {' 'Name = guest' 'WorkingDirectory = /tmp/bacula' 'Pid Directory = /tmp/bacula' \
        'Plugin Directory = /usr/lib/bacula' '}' 'Director {' 'Name = nobody' 'Password = none' '}' \
        'Messages {' 'Name = Standard' 'director = nobody = all' '}' \
        'Device {' 'Name = Tape' 'Media Type = LTO' "Archive Device = $(device 1 scsi_tape)" 'AutomaticMount = yes' \
        'AlwaysOpen = yes' 'RemovableMedia = yes' 'RandomAccess = no' 'Autochanger = yes' 'Drive Index = 0' \
        "Changer Device = $(device 0 scsi_generic)" \
        'Changer Command = "/etc/bacula/scripts/mtx-changer %c %o %S %a %d"' '}' >/tmp/bacula.conf
    # btape opens the drive before it does anything.
    mtx -f "$(device 0 scsi_generic)" load 1 0
    printf 'autochanger\ny\n\nquit\n' | btape -c /tmp/bacula.conf "$(device 1 scsi_tape)"
"#;
