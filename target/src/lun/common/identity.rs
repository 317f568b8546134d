//! The names a logical unit is known by.
//!
//! Made once from what is configured, the same after every restart. Follows SPC-4, "Device Identification VPD page".

use protocol::scsi::designator::{Association, Designator};

/// Names, revision and serial number of a logical unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// T10 VENDOR IDENTIFICATION, at most 8 ASCII characters.
    pub vendor: String,
    /// PRODUCT IDENTIFICATION, at most 16 ASCII characters.
    pub product: String,
    /// PRODUCT REVISION LEVEL, at most 4 ASCII characters.
    pub revision: String,
    /// PRODUCT SERIAL NUMBER of VPD page 80h.
    pub serial: String,
    /// NAA designator of format 6h, IEEE registered extended.
    pub naa: [u8; 16],
    /// iSCSI name of the target that the logical unit is reached through.
    pub target_name: String,
}

/// The company id of our NAA designators. None is registered for this program; the bit "locally administered" is set, so that it is
/// no other company's.
const COMPANY_ID: u32 = 0x02_4F_48;

impl Identity {
    /// Names that stay the same as long as target name and `backing` do: whatever tells one store of the target from another,
    /// as the path of its file.
    #[must_use]
    pub fn new(target_name: &str, backing: &str, product: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("offhost 2026-01 logical unit identity");
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        hasher.update(&(target_name.len() as u64).to_be_bytes()).update(target_name.as_bytes()).update(backing.as_bytes());
        let hash = *hasher.finalize().as_bytes();
        Self {
            vendor: "OFFHOST".into(),
            product: product.into(),
            revision: revision(env!("CARGO_PKG_VERSION")),
            serial: hash[..8].iter().map(|byte| format!("{byte:02X}")).collect(),
            naa: naa(&hash),
            target_name: target_name.into(),
        }
    }

    /// The NAA designator as hexadecimal digits.
    #[must_use]
    pub fn naa_text(&self) -> String {
        self.naa.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The names of the logical unit, and of its target through the first portal group. A CSCD descriptor E4h that is equal to one of
    /// them names this logical unit.
    #[must_use]
    pub fn designators(&self) -> Vec<Designator> {
        self.designators_at(1)
    }

    /// What VPD page 83h lists for a nexus that came through a portal group: that is a target port, and a target port group of its own.
    #[must_use]
    pub fn designators_at(&self, portal_group: u16) -> Vec<Designator> {
        // RFC 7143 (4.2.7.8), "SCSI device and port names".
        let port = format!("{},t,{portal_group:#06x}", self.target_name);
        vec![
            Designator::naa(&self.naa),
            Designator::t10_vendor_id(&self.vendor, &self.serial),
            Designator::relative_target_port(portal_group),
            Designator::target_port_group(portal_group),
            Designator::name_string(Association::TargetPort, &port),
            Designator::name_string(Association::TargetDevice, &self.target_name),
        ]
    }
}

/// Format 6h, company id, then 92 bits of the hash. SPC-4, "NAA IEEE Registered Extended designator format".
fn naa(hash: &[u8; 32]) -> [u8; 16] {
    let mut naa = [0; 16];
    naa.copy_from_slice(&hash[8..24]);
    let head = 0x6 << 28 | COMPANY_ID << 4 | u32::from(naa[3] & 0x0F);
    naa[..4].copy_from_slice(&head.to_be_bytes());
    naa
}

/// `1.23.4` as `1.23`: four characters are all there is room for.
fn revision(version: &str) -> String {
    let short: String = version.chars().take(4).collect();
    short.trim_end_matches('.').into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_backing_has_the_same_name_and_another_has_another() {
        let identity = Identity::new("iqn.2026-01.org.offhost:t", "/srv/vol.img", "DISK");
        assert_eq!(identity, Identity::new("iqn.2026-01.org.offhost:t", "/srv/vol.img", "DISK"));
        assert_ne!(identity.naa, Identity::new("iqn.2026-01.org.offhost:t", "/srv/vol2.img", "DISK").naa);
        assert_ne!(identity.naa, Identity::new("iqn.2026-01.org.offhost:t2", "/srv/vol.img", "DISK").naa);
    }

    #[test]
    fn the_naa_begins_with_format_6_and_the_company_id() {
        let naa = Identity::new("iqn.a:b", "x", "DISK").naa;
        assert_eq!(u32::from_be_bytes([naa[0], naa[1], naa[2], naa[3]]) >> 4, 0x0602_4F48);
    }
}
