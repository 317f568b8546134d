//! `saveconfig.json` of targetcli.
//!
//! Stores stand in `storage_objects`, and LUNs of target portal groups refer to them by their path in targetcli's tree. A group that is
//! off is left out. Keys that say nothing of what is served are passed over. Follows the files that rtslib writes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use protocol::control::spec::{AccessSpec, LunSpec, PortalSpec, SeenLun, Size, TargetSpec};
use serde::Deserialize;

use super::{ImportError, Importing, is_pattern, nobody};

#[derive(Deserialize)]
struct Saved {
    #[serde(default)]
    fabric_modules: Vec<FabricModule>,
    #[serde(default)]
    storage_objects: Vec<StorageObject>,
    #[serde(default)]
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct FabricModule {
    name: String,
    #[serde(default)]
    discovery_enable_auth: Flag,
    #[serde(default)]
    discovery_userid: String,
    #[serde(default)]
    discovery_password: String,
    #[serde(default)]
    discovery_mutual_userid: String,
    #[serde(default)]
    discovery_mutual_password: String,
}

#[derive(Deserialize)]
struct StorageObject {
    name: String,
    plugin: String,
    #[serde(default)]
    dev: Option<PathBuf>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    readonly: Flag,
    #[serde(default)]
    wwn: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Target {
    fabric: String,
    wwn: String,
    #[serde(default)]
    tpgs: Vec<PortalGroup>,
}

#[derive(Deserialize)]
struct PortalGroup {
    tag: u16,
    #[serde(default = "on")]
    enable: Flag,
    #[serde(default)]
    attributes: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    luns: Vec<Lun>,
    #[serde(default)]
    node_acls: Vec<NodeAcl>,
    #[serde(default)]
    portals: Vec<Portal>,
    #[serde(flatten)]
    chap: Chap,
}

#[derive(Deserialize)]
struct Lun {
    index: u16,
    storage_object: String,
}

#[derive(Deserialize)]
struct NodeAcl {
    node_wwn: String,
    #[serde(default)]
    mapped_luns: Vec<MappedLun>,
    #[serde(flatten)]
    chap: Chap,
}

#[derive(Deserialize)]
struct MappedLun {
    index: u16,
    tpg_lun: u16,
    #[serde(default)]
    write_protect: Flag,
}

#[derive(Deserialize)]
struct Portal {
    ip_address: String,
    port: u16,
}

/// Empty texts stand for nothing.
#[derive(Default, Deserialize)]
struct Chap {
    #[serde(default)]
    chap_userid: String,
    #[serde(default)]
    chap_password: String,
    #[serde(default)]
    chap_mutual_userid: String,
    #[serde(default)]
    chap_mutual_password: String,
}

/// `true`, `1` or `"1"`, as versions of rtslib differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "serde_json::Value")]
struct Flag(bool);

impl From<serde_json::Value> for Flag {
    fn from(value: serde_json::Value) -> Self {
        Self(match value {
            serde_json::Value::Bool(flag) => flag,
            serde_json::Value::Number(number) => number.as_u64().is_some_and(|number| number != 0),
            serde_json::Value::String(text) => matches!(text.as_str(), "1" | "yes" | "true" | "Yes"),
            _ => false,
        })
    }
}

fn on() -> Flag {
    Flag(true)
}

pub(super) fn import(path: &Path, text: &str, import: &mut Importing) -> Result<(), ImportError> {
    let file = path.display();
    let saved: Saved = serde_json::from_str(text)
        .map_err(|error| ImportError::Malformed { place: file.to_string(), message: error.to_string() })?;
    let mut stores = BTreeMap::new();
    for (at, object) in saved.storage_objects.iter().enumerate() {
        let place = format!("{file}: storage_objects[{at}] ({})", object.name);
        if let Some(spec) = store(&place, object, import)? {
            stores.insert(format!("/backstores/{}/{}", object.plugin, object.name), spec);
        }
    }
    for module in saved.fabric_modules.iter().filter(|module| module.name == "iscsi" && module.discovery_enable_auth.0) {
        let chap = Chap {
            chap_userid: module.discovery_userid.clone(),
            chap_password: module.discovery_password.clone(),
            chap_mutual_userid: module.discovery_mutual_userid.clone(),
            chap_mutual_password: module.discovery_mutual_password.clone(),
        };
        import.config.discovery.chap = chap.spec(&format!("{file}: fabric_modules"), "discovery", import);
    }
    for (at, target) in saved.targets.iter().enumerate() {
        let place = format!("{file}: targets[{at}] ({})", target.wwn);
        match target.fabric.as_str() {
            "iscsi" => self::target(&place, target, &stores, import)?,
            fabric => import.note(&place, format!("{fabric} is not served: left out")),
        }
    }
    if !stores.is_empty() {
        import.note(&file.to_string(), "LUNs get NAA designators of this target: multipath names on initiators change");
    }
    Ok(())
}

/// A store as a disk without a number; nothing where it is none that can be served.
fn store(place: &str, object: &StorageObject, import: &mut Importing) -> Result<Option<LunSpec>, ImportError> {
    if !matches!(object.plugin.as_str(), "fileio" | "block") {
        import.note(place, format!("{} has no counterpart: left out, with its LUNs", object.plugin));
        return Ok(None);
    }
    let Some(dev) = &object.dev else { return Err(malformed(place, "it has no dev")) };
    let number = |key: &str| object.attributes.get(key).and_then(serde_json::Value::as_u64);
    let serial = object.wwn.as_ref().and_then(|wwn| import.inquiry(place, "serial", wwn, 64));
    Ok(Some(LunSpec {
        disk: Some(dev.clone()),
        // What lies there already must agree with a size; a block device has its own.
        size: object.size.filter(|size| object.plugin == "fileio" && *size > 0).map(Size),
        block: number("block_size").and_then(|length| u32::try_from(length).ok()).filter(|length| *length != 512),
        read_only: object.readonly.0.then_some(true),
        thin: number("emulate_tpu").map(|emulated| emulated != 0),
        serial,
        ..LunSpec::default()
    }))
}

fn target(place: &str, target: &Target, stores: &BTreeMap<String, LunSpec>, import: &mut Importing) -> Result<(), ImportError> {
    crate::config::check_name(&target.wwn).map_err(|message| malformed(place, message))?;
    let mut spec = TargetSpec { name: target.wwn.clone(), ..TargetSpec::default() };
    for (at, group) in target.tpgs.iter().enumerate() {
        let place = format!("{place}.tpgs[{at}]");
        if !group.enable.0 {
            import.note(&place, format!("portal group {} is off: left out", group.tag));
            continue;
        }
        let luns = luns(&place, group, stores, import)?;
        if spec.portal_groups.is_empty() {
            spec.luns = luns;
        } else if spec.luns != luns {
            import.note(&place, "its LUNs differ from those of the group before it: those of the first are served");
        }
        let access = access(&place, &target.wwn, group, import)?;
        spec.access.extend(access.into_iter().filter(|entry| !spec.access.contains(entry)).collect::<Vec<_>>());
        for portal in &group.portals {
            add_portal(&place, portal, group.tag, import)?;
        }
        if !group.portals.is_empty() {
            spec.portal_groups.push(group.tag);
        }
    }
    import.config.targets.push(spec);
    Ok(())
}

fn luns(
    place: &str,
    group: &PortalGroup,
    stores: &BTreeMap<String, LunSpec>,
    import: &mut Importing,
) -> Result<Vec<LunSpec>, ImportError> {
    let mut luns = Vec::new();
    for (at, lun) in group.luns.iter().enumerate() {
        let place = format!("{place}.luns[{at}]");
        let known = lun.storage_object.starts_with("/backstores/");
        match stores.get(&lun.storage_object) {
            Some(store) => luns.push(LunSpec { lun: Some(lun.index), ..store.clone() }),
            None if known => import.note(&place, format!("{} is not served: LUN {} is left out", lun.storage_object, lun.index)),
            None => return Err(malformed(&place, format!("storage_object {:?} is no path of a store", lun.storage_object))),
        }
    }
    luns.sort_by_key(|lun| lun.lun);
    Ok(luns)
}

fn add_portal(place: &str, portal: &Portal, tag: u16, import: &mut Importing) -> Result<(), ImportError> {
    let address = portal.ip_address.trim_start_matches('[').trim_end_matches(']');
    let address: IpAddr = address.parse().map_err(|_| malformed(place, format!("{:?} is no IP address", portal.ip_address)))?;
    let spec = PortalSpec { listen: SocketAddr::new(address, portal.port), advertise: None, tag };
    if let Some(there) = import.config.portals.iter().find(|there| there.listen == spec.listen) {
        if there.tag != tag {
            let (listen, tag) = (there.listen, there.tag);
            import.note(place, format!("{listen} has portal group tag {tag} here: one address has one tag"));
            return Ok(());
        }
        return Ok(());
    }
    import.config.portals.push(spec);
    Ok(())
}

fn access(place: &str, target: &str, group: &PortalGroup, import: &mut Importing) -> Result<Vec<AccessSpec>, ImportError> {
    let flag = |key: &str| group.attributes.get(key).cloned().map(Flag::from).unwrap_or_default().0;
    let authenticated = flag("authentication");
    let mut entries = Vec::new();
    for (at, acl) in group.node_acls.iter().enumerate() {
        let place = format!("{place}.node_acls[{at}] ({})", acl.node_wwn);
        if !is_pattern(&acl.node_wwn) {
            return Err(malformed(&place, "node_wwn is no initiator name"));
        }
        let chap = acl.chap.spec(&place, target, import).filter(|_| authenticated);
        if authenticated && chap.is_none() {
            import.note(&place, "it has no credentials where they are asked for: it could not log in, and is left out");
            continue;
        }
        entries.push(AccessSpec { chap, ..mapped(acl) });
    }
    if flag("generate_node_acls") {
        let chap = group.chap.spec(place, target, import).filter(|_| authenticated);
        if authenticated && chap.is_none() {
            import.note(place, "everybody may come, and has to prove what is not said: left out");
        } else {
            // rtslib writes only what differs from the kernel's defaults; this one is on.
            let read_only = group.attributes.get("demo_mode_write_protect").cloned().is_none_or(|value| Flag::from(value).0);
            entries.push(AccessSpec { initiators: vec!["*".to_owned()], luns: None, read_only, chap });
        }
    }
    if entries.is_empty() {
        import.note(place, "nobody may log in: add access entries");
        entries.push(nobody(&format!("tpg-{}", group.tag)));
    }
    Ok(entries)
}

/// What an initiator sees.
fn mapped(acl: &NodeAcl) -> AccessSpec {
    let read_only = !acl.mapped_luns.is_empty() && acl.mapped_luns.iter().all(|lun| lun.write_protect.0);
    let seen = |lun: &MappedLun| SeenLun { lun: lun.tpg_lun, seen_as: lun.index, read_only: lun.write_protect.0 && !read_only };
    AccessSpec {
        initiators: vec![acl.node_wwn.clone()],
        luns: Some(acl.mapped_luns.iter().map(seen).collect()),
        read_only,
        chap: None,
    }
}

impl Chap {
    fn spec(&self, place: &str, owner: &str, import: &mut Importing) -> Option<protocol::control::spec::ChapSpec> {
        if self.chap_userid.is_empty() {
            return None;
        }
        let mut chap = import.chap(place, owner, &self.chap_userid, &self.chap_password);
        if !self.chap_mutual_userid.is_empty() {
            chap.mutual_secret_file = Some(import.keep(place, owner, &self.chap_mutual_userid, &self.chap_mutual_password));
            chap.mutual_user = Some(self.chap_mutual_userid.clone());
        }
        Some(chap)
    }
}

fn malformed(place: &str, message: impl Into<String>) -> ImportError {
    ImportError::Malformed { place: place.to_owned(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::Imported;
    use proptest::prelude::*;

    /// The shape of a file of targetcli-fb 2.1, shortened to what it says.
    const REALISTIC: &str = r#"{
      "fabric_modules": [{"name": "iscsi", "discovery_enable_auth": true, "discovery_userid": "disco",
        "discovery_password": "discovery-secret", "discovery_mutual_userid": "", "discovery_mutual_password": ""}],
      "storage_objects": [
        {"name": "vm", "plugin": "fileio", "dev": "/srv/vm.img", "size": 10737418240, "write_back": true, "aio": false,
         "wwn": "d2ae9e4c-4c4d-4bd2-a1a2-0a8d9f1c3b55", "alua_tpgs": [{"name": "default_tg_pt_gp", "tg_pt_gp_id": 0}],
         "attributes": {"block_size": 4096, "emulate_tpu": 1, "is_nonrot": 0, "queue_depth": 128}},
        {"name": "raw", "plugin": "block", "dev": "/dev/vg/raw", "readonly": true, "attributes": {"block_size": 512, "emulate_tpu": 0}},
        {"name": "fast", "plugin": "ramdisk", "size": 1048576}],
      "targets": [{"fabric": "iscsi", "wwn": "iqn.2003-01.org.linux-iscsi.host:sn.1", "tpgs": [
        {"tag": 1, "enable": true, "attributes": {"authentication": 1, "generate_node_acls": 0, "cache_dynamic_acls": 0},
         "luns": [{"alias": "a", "index": 0, "storage_object": "/backstores/fileio/vm"},
                  {"alias": "b", "index": 1, "storage_object": "/backstores/block/raw"},
                  {"alias": "c", "index": 2, "storage_object": "/backstores/ramdisk/fast"}],
         "node_acls": [
          {"node_wwn": "iqn.1993-08.org.debian:01:abc", "chap_userid": "ann", "chap_password": "sesame-opens-it",
           "chap_mutual_userid": "us", "chap_mutual_password": "our-other-secret",
           "mapped_luns": [{"alias": "x", "index": 0, "tpg_lun": 0, "write_protect": false},
                           {"alias": "y", "index": 5, "tpg_lun": 1, "write_protect": true}]},
          {"node_wwn": "iqn.1993-08.org.debian:01:def", "mapped_luns": []}],
         "portals": [{"ip_address": "0.0.0.0", "iser": false, "offload": false, "port": 3260},
                     {"ip_address": "[fd00::1]", "iser": false, "offload": false, "port": 3261}]},
        {"tag": 2, "enable": false}]},
       {"fabric": "vhost", "wwn": "naa.5001405", "tpgs": []}]
    }"#;

    fn imported(text: &str) -> Result<Imported, ImportError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("saveconfig.json");
        std::fs::write(&path, text).unwrap();
        super::super::import(&path, Path::new("/secrets"))
    }

    #[test]
    fn a_realistic_file_becomes_ours() {
        let Imported { config, secrets, notes } = imported(REALISTIC).unwrap();
        let [target] = config.targets.as_slice() else { panic!("{config:?}") };
        let [vm, raw] = target.luns.as_slice() else { panic!("{target:?}") };
        assert_eq!((vm.lun, vm.size, vm.block, vm.thin), (Some(0), Some(Size(10 << 30)), Some(4096), Some(true)));
        assert_eq!(vm.serial.as_deref(), Some("d2ae9e4c-4c4d-4bd2-a1a2-0a8d9f1c3b55"));
        assert_eq!((raw.lun, raw.size, raw.read_only, raw.thin), (Some(1), None, Some(true), Some(false)));
        let [access] = target.access.as_slice() else { panic!("{target:?}") };
        assert_eq!(access.luns.as_deref(), Some(&[0.into(), SeenLun { read_only: true, ..SeenLun::renumbered(1, 5) }][..]));
        assert_eq!((access.initiators.len(), access.read_only), (1, false));
        assert_eq!(access.chap.as_ref().unwrap().mutual_user.as_deref(), Some("us"));
        assert_eq!(
            config.portals.iter().map(|portal| portal.listen.to_string()).collect::<Vec<_>>(),
            ["0.0.0.0:3260", "[fd00::1]:3261"]
        );
        assert_eq!((config.discovery.chap.unwrap().user.as_str(), secrets.len()), ("disco", 3));
        let said: Vec<String> = notes.iter().map(ToString::to_string).collect();
        for words in ["ramdisk", "LUN 2 is left out", "no credentials", "group 2 is off", "vhost"] {
            assert!(said.iter().any(|note| note.contains(words)), "{words}: {said:#?}");
        }
        assert!(!format!("{said:?}").contains("sesame"));
    }

    #[test]
    fn what_is_no_configuration_is_refused_with_its_place() {
        let group = |inside: &str| {
            format!("{{\"targets\":[{{\"fabric\":\"iscsi\",\"wwn\":\"iqn.a:b\",\"tpgs\":[{{\"tag\":1,{inside}}}]}}]}}")
        };
        for (text, place) in [
            ("{\"targets\": [\n{]}".to_owned(), "line 2 column 2"),
            ("{\"targets\": [{\"fabric\": \"iscsi\"}]}".to_owned(), "wwn"),
            ("{\"storage_objects\": [{\"name\": \"x\", \"plugin\": \"fileio\"}]}".to_owned(), "storage_objects[0] (x)"),
            (group("\"luns\":[{\"index\":0,\"storage_object\":\"vm\"}]"), "tpgs[0].luns[0]"),
            (group("\"portals\":[{\"ip_address\":\"here\",\"port\":1}]"), "\"here\""),
            (group("\"node_acls\":[{\"node_wwn\":\"a/b\"}]"), "node_acls[0]"),
        ] {
            let said = imported(&text).unwrap_err().to_string();
            assert!(said.contains(place), "{text}: {said}");
        }
    }

    proptest! {
        #[test]
        fn no_cut_of_a_file_makes_it_panic(end in 0..REALISTIC.len(), with in "[\\]}\",:0-9a-z]{0,8}") {
            let mut text = REALISTIC.get(..end).unwrap_or("{").to_owned();
            text.push_str(&with);
            let _ = super::import(Path::new("x"), &text, &mut Importing::default());
        }
    }
}
