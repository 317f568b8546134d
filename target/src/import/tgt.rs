//! `targets.conf` of tgt-admin.
//!
//! Lines of `key value`, and blocks `<target …>`, `<backing-store …>`, `<direct-store …>` around them; `#` begins a comment, quotes
//! keep blanks, a backslash joins lines. LUN 0 of tgt is its controller: stores count from 1, those of `backing-store` first.
//! Follows targets.conf(5).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use protocol::control::spec::{AccessSpec, ChapSpec, LunSpec, PortalSpec, TargetSpec};

use super::{ImportError, Importing, is_pattern, nobody, read};

/// How deep includes may include.
const INCLUDES_MAX: usize = 8;

/// `key value`, or a block of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    /// File and line.
    place: String,
    key: String,
    value: String,
    /// What stands between `<key value>` and `</key>`.
    block: Option<Vec<Item>>,
}

pub(super) fn import(path: &Path, text: &str, import: &mut Importing) -> Result<(), ImportError> {
    let mut items = Vec::new();
    gather(path, text, 0, &mut items)?;
    import.config.portals =
        vec![PortalSpec { listen: "0.0.0.0:3260".parse().expect("a valid address"), advertise: None, tag: 1 }];
    let (mut incoming, mut outgoing) = (None, None);
    for item in &items {
        match (item.key.as_str(), &item.block) {
            ("target", Some(inside)) => target(item, inside, import)?,
            ("incomingdiscoveryuser", None) => incoming = Some(item),
            ("outgoingdiscoveryuser", None) => outgoing = Some(item),
            ("default-driver", None) if item.value == "iscsi" => {}
            // Of tgtadm's own business.
            ("ignore-errors" | "control-port", None) => {}
            _ => import.note(&item.place, format!("{} {} is not carried over", item.key, item.value)),
        }
    }
    if let Some(item) = incoming {
        let mut chap = credentials(item, "discovery", import)?;
        if let Some(item) = outgoing {
            mutual(&mut chap, item, "discovery", import)?;
        }
        import.config.discovery.chap = Some(chap);
    }
    Ok(())
}

fn target(item: &Item, inside: &[Item], import: &mut Importing) -> Result<(), ImportError> {
    let mut target = TargetSpec { name: item.value.clone(), ..TargetSpec::default() };
    crate::config::check_name(&target.name).map_err(|message| malformed(&item.place, message))?;
    let shared: Vec<&Item> = inside.iter().filter(|item| is_lun_key(&item.key)).collect();
    let mut luns = Vec::new();
    for kind in ["backing-store", "direct-store"] {
        for store in inside.iter().filter(|item| item.key == kind) {
            luns.extend(lun(store, &shared, import)?);
        }
    }
    number(&mut luns);
    target.luns = luns;
    target.access = access(&target.name, inside, import)?;
    for item in inside {
        let known = ["backing-store", "direct-store", "initiator-name", "initiator-address", "incominguser", "outgoinguser"];
        match item.key.as_str() {
            key if known.contains(&key) || is_lun_key(key) => {}
            "driver" if item.value == "iscsi" => {}
            // Numbers that tgtadm gives things.
            "controller_tid" => {}
            key => import.note(&item.place, format!("{key} {} is not carried over", item.value)),
        }
    }
    import.config.targets.push(target);
    Ok(())
}

fn is_lun_key(key: &str) -> bool {
    let keys = "lun write-cache scsi_id scsi_sn vendor_id product_id product_rev sense_format removable online path mode_page readonly \
                device-type bs-type allow-in-use block-size lbppbe la_lba optimal_xfer_gran optimal_xfer_len params";
    keys.split_whitespace().any(|known| known == key)
}

/// A store as a disk; nothing where it is none that can be served.
fn lun(store: &Item, shared: &[&Item], import: &mut Importing) -> Result<Option<LunSpec>, ImportError> {
    if store.value.is_empty() {
        return Err(malformed(&store.place, format!("{} without a path", store.key)));
    }
    let mut spec = LunSpec { disk: Some(PathBuf::from(&store.value)), ..LunSpec::default() };
    // Of the LUN before those of the target: the first that is set holds.
    let options = store.block.iter().flatten().chain(shared.iter().copied());
    let mut seen = BTreeSet::new();
    for option in options.filter(|option| seen.insert(option.key.as_str())) {
        let (place, value) = (option.place.as_str(), option.value.as_str());
        match option.key.as_str() {
            "lun" => spec.lun = Some(parsed(option)?),
            "block-size" => spec.block = Some(parsed(option)?),
            "readonly" => spec.read_only = yes(option)?.then_some(true),
            "removable" => spec.removable = yes(option)?.then_some(true),
            "vendor_id" => spec.vendor = import.inquiry(place, "vendor", value, 8),
            "product_id" => spec.product = import.inquiry(place, "product", value, 16),
            "scsi_sn" => spec.serial = import.inquiry(place, "serial", value, 64),
            "device-type" if value == "disk" => {}
            "device-type" if value == "tape" => {
                // What lies there has tgt's own format; a shelf is a folder, and is made beside it.
                let shelf = PathBuf::from(format!("{}.shelf", store.value));
                let what = format!("{} has a format of tgt's own: an empty shelf {} is served", store.value, shelf.display());
                import.note(place, format!("{what}; copy the tape while tgt still serves it"));
                (spec.disk, spec.tape) = (None, Some(shelf));
            }
            "device-type" => {
                let what =
                    format!("a {value} of tgt has no counterpart that could be filled from it: {} is left out", store.value);
                import.note(place, what);
                return Ok(None);
            }
            // Each initiator chooses WCE, and whether a file is in use is always looked at.
            "write-cache" | "allow-in-use" | "bs-type" | "online" => {}
            key => import.note(place, format!("{key} {value} is not carried over")),
        }
    }
    if spec.tape.is_some() {
        // Options of the target hold for its disks as well.
        let LunSpec { lun, tape, vendor, product, serial, .. } = spec;
        spec = LunSpec { lun, tape, vendor, product, serial, ..LunSpec::default() };
    }
    if store.key == "direct-store" {
        import.note(
            &store.place,
            format!("{} is served as a disk; the names of the device behind it are not passed on", store.value),
        );
    }
    Ok(Some(spec))
}

/// Those without a number get the free ones from 1 on.
fn number(luns: &mut [LunSpec]) {
    let taken: BTreeSet<u16> = luns.iter().filter_map(|lun| lun.lun).collect();
    let mut free = (1..=u16::MAX).filter(|number| !taken.contains(number));
    for lun in luns.iter_mut().filter(|lun| lun.lun.is_none()) {
        lun.lun = free.next();
    }
}

fn access(target: &str, inside: &[Item], import: &mut Importing) -> Result<Vec<AccessSpec>, ImportError> {
    let of = |key: &'static str| inside.iter().filter(move |item| item.key == key);
    let mut initiators = Vec::new();
    for item in of("initiator-name") {
        match is_pattern(&item.value) {
            true => initiators.push(item.value.clone()),
            false => return Err(malformed(&item.place, format!("{:?} is no initiator name", item.value))),
        }
    }
    let mut restricted = None;
    for item in of("initiator-address").filter(|item| item.value != "ALL") {
        let name = &item.value;
        import.note(
            &item.place,
            format!("access goes by names, not by addresses: put the name of the initiator at {name} in its place"),
        );
        restricted = Some(name.clone());
    }
    let mut chaps = of("incominguser").map(|item| credentials(item, target, import)).collect::<Result<Vec<_>, _>>()?;
    for (at, item) in of("outgoinguser").enumerate() {
        if at > 0 || chaps.is_empty() {
            import.note(&item.place, "outgoinguser is not carried over: there is one, beside an incominguser");
            continue;
        }
        chaps.iter_mut().try_for_each(|chap| mutual(chap, item, target, import))?;
    }
    if initiators.is_empty() {
        match (restricted, chaps.is_empty()) {
            (Some(address), _) => initiators = nobody(&address).initiators,
            (None, true) => return Ok(Vec::new()),
            (None, false) => initiators.push("*".to_owned()),
        }
    }
    let entry = |chap| AccessSpec { initiators: initiators.clone(), chap, ..AccessSpec::default() };
    Ok(if chaps.is_empty() { vec![entry(None)] } else { chaps.into_iter().map(|chap| entry(Some(chap))).collect() })
}

/// `user password`.
fn credentials(item: &Item, owner: &str, import: &mut Importing) -> Result<ChapSpec, ImportError> {
    let (user, secret) = user_and_secret(item)?;
    Ok(import.chap(&item.place, owner, user, secret))
}

fn mutual(chap: &mut ChapSpec, item: &Item, owner: &str, import: &mut Importing) -> Result<(), ImportError> {
    let (user, secret) = user_and_secret(item)?;
    chap.mutual_secret_file = Some(import.keep(&item.place, owner, user, secret));
    chap.mutual_user = Some(user.to_owned());
    Ok(())
}

fn user_and_secret(item: &Item) -> Result<(&str, &str), ImportError> {
    let parts = item.value.split_once(char::is_whitespace).map(|(user, secret)| (user, secret.trim()));
    parts.ok_or_else(|| malformed(&item.place, format!("{} wants a user and a password", item.key)))
}

fn parsed<T: std::str::FromStr>(item: &Item) -> Result<T, ImportError> {
    item.value
        .parse()
        .map_err(|_| malformed(&item.place, format!("{} {:?} is no number, or too large a one", item.key, item.value)))
}

fn yes(item: &Item) -> Result<bool, ImportError> {
    match item.value.to_ascii_lowercase().as_str() {
        "1" | "yes" | "on" | "true" => Ok(true),
        "0" | "no" | "off" | "false" => Ok(false),
        other => Err(malformed(&item.place, format!("{} {other:?} is neither yes nor no", item.key))),
    }
}

/// The items of a file and of those that it includes.
fn gather(path: &Path, text: &str, depth: usize, items: &mut Vec<Item>) -> Result<(), ImportError> {
    for item in parse(&path.display().to_string(), text)? {
        if item.key != "include" {
            items.push(item);
            continue;
        }
        if depth == INCLUDES_MAX {
            return Err(malformed(&item.place, "files include each other too deeply".to_owned()));
        }
        for included in expand(path, &item)? {
            let text = read(&included)?;
            gather(&included, &text, depth + 1, items)?;
        }
    }
    Ok(())
}

/// The files of `include /etc/tgt/conf.d/*.conf`; none where there is no such folder.
fn expand(from: &Path, item: &Item) -> Result<Vec<PathBuf>, ImportError> {
    let path = from.parent().unwrap_or(Path::new("")).join(&item.value);
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Err(malformed(&item.place, format!("include {:?} names no file", item.value)));
    };
    let Some((first, last)) = name.split_once('*') else { return Ok(vec![path]) };
    let folder = path.parent().unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let fits = |name: &str| name.len() >= first.len() + last.len() && name.starts_with(first) && name.ends_with(last);
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(fits))
        .collect();
    found.sort();
    Ok(found)
}

/// Cuts a text into items.
fn parse(file: &str, text: &str) -> Result<Vec<Item>, ImportError> {
    // Blocks that are open, the innermost last; the first stands for the file.
    let mut open: Vec<Item> = Vec::new();
    let mut items: Vec<Item> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let place = format!("{file}: line {}", at + 1);
        let mut line = without_comment(line).trim().to_owned();
        while let Some(begun) = line.strip_suffix('\\') {
            let next = lines.next().map(|(_, next)| without_comment(next).trim().to_owned()).unwrap_or_default();
            line = format!("{} {next}", begun.trim_end());
        }
        if line.is_empty() {
            continue;
        }
        if let Some(name) = line.strip_prefix("</") {
            let name = name.strip_suffix('>').map(str::trim).unwrap_or_default();
            match open.pop() {
                Some(block) if block.key == name => close(block, &mut open, &mut items),
                Some(block) => return Err(malformed(&place, format!("{line} where <{}> of {} is open", block.key, block.place))),
                None => return Err(malformed(&place, format!("{line} where nothing is open"))),
            }
        } else if let Some(head) = line.strip_prefix('<') {
            let head = head.strip_suffix('>').ok_or_else(|| malformed(&place, format!("{line} has no end")))?;
            let (key, value) = key_and_value(head);
            open.push(Item { place, key, value, block: Some(Vec::new()) });
        } else {
            let (key, value) = key_and_value(&line);
            close(Item { place, key, value, block: None }, &mut open, &mut items);
        }
    }
    match open.pop() {
        Some(block) => Err(malformed(&block.place, format!("<{}> is never closed", block.key))),
        None => Ok(items),
    }
}

/// Puts a finished item where it belongs.
fn close(item: Item, open: &mut [Item], items: &mut Vec<Item>) {
    match open.last_mut().and_then(|block| block.block.as_mut()) {
        Some(inside) => inside.push(item),
        None => items.push(item),
    }
}

/// `key value`, `key = value`; a value in quotes without them.
fn key_and_value(text: &str) -> (String, String) {
    let text = text.trim();
    let end = text.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(text.len());
    let value = text[end..].trim_start().strip_prefix('=').unwrap_or(&text[end..]).trim();
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    (text[..end].to_owned(), quoted.unwrap_or(value).to_owned())
}

/// A `#` begins a comment unless a backslash stands before it.
fn without_comment(line: &str) -> String {
    let mut kept = String::new();
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\\' if characters.peek() == Some(&'#') => kept.extend(characters.next()),
            '#' => break,
            c => kept.push(c),
        }
    }
    kept
}

fn malformed(place: &str, message: String) -> ImportError {
    ImportError::Malformed { place: place.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::Imported;
    use proptest::prelude::*;

    /// As an administrator writes it, with what tgt's own example shows.
    const REALISTIC: &str = r#"
# one of two SANs
default-driver iscsi
include conf.d/*.conf
incomingdiscoveryuser disco discovery-secret
<target iqn.2008-09.com.example:server.target1>
    backing-store /dev/LVM/one	# Becomes LUN 1
    direct-store /dev/sdd
    <backing-store "/srv/with blank.img">
        vendor_id MyCompany Inc.
        product_id "VIRTUAL DISK"
        scsi_sn = SN-1
        readonly 1
        block-size 4096
        lun 10
    </backing-store>
    <backing-store /srv/tape>
        device-type tape
    </backing-store>
    <backing-store /srv/smc>
        device-type changer
    </backing-store>
    write-cache off
    removable 1
    MaxRecvDataSegmentLength 8192
    initiator-name iqn.1993-08.org.debian:01:abc
    incominguser user1 secretpass12
    incominguser user2 \
        short
    outgoinguser userA secretpassA2
    controller_tid 10
</target>
"#;

    fn imported(text: &str) -> Result<Imported, ImportError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("targets.conf");
        std::fs::create_dir(folder.path().join("conf.d")).unwrap();
        std::fs::write(
            folder.path().join("conf.d/b.conf"),
            "<target iqn.2008-09.com.example:b>\n  initiator-address 10.0.0.1\n</target>\n",
        )
        .unwrap();
        std::fs::write(&path, text).unwrap();
        super::super::import(&path, Path::new("/secrets"))
    }

    #[test]
    fn a_realistic_file_becomes_ours() {
        let Imported { config, secrets, notes } = imported(REALISTIC).unwrap();
        let [included, target] = config.targets.as_slice() else { panic!("{config:?}") };
        assert_eq!(included.access.len(), 1, "an address that cannot be kept lets nobody in");
        let luns: Vec<_> = target.luns.iter().map(|lun| (lun.lun.unwrap(), lun.backing().unwrap())).collect();
        assert_eq!(
            luns,
            [
                (1, "/dev/LVM/one".into()),
                (10, "/srv/with blank.img".into()),
                (2, "/srv/tape.shelf".into()),
                (3, "/dev/sdd".into()),
            ]
        );
        let ten = &target.luns[1];
        assert_eq!((ten.vendor.as_deref(), ten.product.as_deref()), (Some("MyCompan"), Some("VIRTUAL DISK")));
        assert_eq!((ten.read_only, ten.block, ten.removable), (Some(true), Some(4096), Some(true)));
        let users: Vec<_> = target.access.iter().map(|entry| entry.chap.clone().unwrap()).collect();
        assert_eq!(users.iter().map(|chap| chap.user.as_str()).collect::<Vec<_>>(), ["user1", "user2"]);
        assert_eq!(users[1].mutual_user.as_deref(), Some("userA"));
        assert_eq!(target.access[0].initiators, ["iqn.1993-08.org.debian:01:abc"]);
        assert_eq!(config.discovery.chap.unwrap().user, "disco");
        assert_eq!(secrets.len(), 4);
        let said: Vec<String> = notes.iter().map(ToString::to_string).collect();
        for words in [
            "10.0.0.1",
            "MyCompany Inc.",
            "a changer of tgt",
            "/srv/tape.shelf",
            "MaxRecvDataSegmentLength",
            "user2 has 5 bytes",
            "/dev/sdd",
        ] {
            assert!(said.iter().any(|note| note.contains(words) && note.contains("line ")), "{words}: {said:#?}");
        }
        assert!(!format!("{said:?}").contains("secretpass"));
    }

    #[test]
    fn what_is_no_configuration_is_refused_with_its_line() {
        for (text, line, word) in [
            ("\n<target iqn.a:b>\n", 2, "never closed"),
            ("<target iqn.a:b>\n</targt>\n", 2, "open"),
            ("</target>\n", 1, "nothing is open"),
            ("<target\n", 1, "no end"),
            ("<target my-target>\n</target>\n", 1, "iqn."),
            ("<target iqn.a:b>\n  <backing-store /x>\n    lun many\n  </backing-store>\n</target>\n", 3, "many"),
            ("<target iqn.a:b>\n  incominguser alone\n</target>\n", 2, "password"),
            ("<target iqn.a:b>\n  initiator-name a/b\n</target>\n", 2, "initiator name"),
            ("include targets.conf\n", 1, "too deeply"),
        ] {
            let said = imported(text).unwrap_err().to_string();
            assert!(said.contains(&format!("line {line}:")) && said.contains(word), "{text:?}: {said}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[<>/a-z\\\\\"# =\n0-9:.*-]{0,200}") {
            let _ = parse("x", &text);
        }
    }
}
