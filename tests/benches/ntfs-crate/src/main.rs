//! What the `ntfs` crate does for a map of a volume: all file records by number, their attributes and all data runs.
//!
//! Prints files, runs and seconds. It gives no paths and reads no $Bitmap, so it does less than the map beside it.

use ntfs::Ntfs;
use ntfs::attribute_value::NtfsAttributeValue;
use std::fs::File;
use std::io::BufReader;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: ntfs-crate-baseline IMAGE")?;
    // Its seeks drop the buffer, so a larger one makes it slower.
    let mut volume = BufReader::with_capacity(8192, File::open(path)?);
    let started = Instant::now();
    let ntfs = Ntfs::new(&mut volume)?;
    let mft = ntfs.file(&mut volume, 0)?;
    let data = mft.data(&mut volume, "").ok_or("no $MFT data")??;
    let records = data.to_attribute()?.value_length() / u64::from(ntfs.file_record_size());
    let (mut files, mut attributes, mut runs) = (0u64, 0u64, 0u64);
    for number in 0..records {
        let Ok(file) = ntfs.file(&mut volume, number) else { continue };
        if !file.flags().contains(ntfs::NtfsFileFlags::IN_USE) {
            continue;
        }
        files += 1;
        for attribute in file.attributes_raw() {
            let attribute = attribute?;
            attributes += 1;
            if let NtfsAttributeValue::NonResident(value) = attribute.value(&mut volume)? {
                runs += value.data_runs().filter(|run| run.is_ok()).count() as u64;
            }
        }
    }
    println!("{files} files, {attributes} attributes, {runs} runs, {:.3} s", started.elapsed().as_secs_f64());
    Ok(())
}
