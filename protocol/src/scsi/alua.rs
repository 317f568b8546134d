//! Asymmetric logical unit access as bytes: REPORT TARGET PORT GROUPS.
//!
//! Every port reaches every logical unit alike here, so that the one state told is active/optimized, and none can be set (implicit
//! access only). Follows SPC-4, "REPORT TARGET PORT GROUPS command".

/// A target port group with the relative target port identifiers of its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetPortGroup {
    /// TARGET PORT GROUP.
    pub id: u16,
    /// RELATIVE TARGET PORT IDENTIFIERs; at most 255.
    pub ports: Vec<u16>,
}

/// REPORT TARGET PORT GROUPS parameter data; `extended` with the header that tells how long a transition takes: none is made.
#[must_use]
pub fn report_target_port_groups(groups: &[TargetPortGroup], extended: bool) -> Vec<u8> {
    const ACTIVE_OPTIMIZED: u8 = 0x0;
    const AO_SUP: u8 = 0x01;
    const EXTENDED_HEADER: [u8; 4] = [0x10, 0, 0, 0];
    let mut data = vec![0; 4];
    data.extend(extended.then_some(EXTENDED_HEADER).into_iter().flatten());
    for group in groups {
        let ports = &group.ports[..group.ports.len().min(255)];
        let [high, low] = group.id.to_be_bytes();
        data.extend([ACTIVE_OPTIMIZED, AO_SUP, high, low, 0, 0, 0, ports.len() as u8]);
        data.extend(ports.iter().flat_map(|port| [[0, 0], port.to_be_bytes()]).flatten());
    }
    let length = (data.len() - 4) as u32;
    data[..4].copy_from_slice(&length.to_be_bytes());
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hex;

    #[test]
    fn groups_are_told_with_their_ports_and_lengths() {
        let groups = [TargetPortGroup { id: 1, ports: vec![1] }, TargetPortGroup { id: 7, ports: vec![7, 8] }];
        let body = "00 01 0001 00 00 00 01 00000001  00 01 0007 00 00 00 02 00000007 00000008";
        assert_eq!(report_target_port_groups(&groups, false), hex(&format!("0000001c {body}")));
        assert_eq!(report_target_port_groups(&groups, true), hex(&format!("00000020 10000000 {body}")));
    }
}
