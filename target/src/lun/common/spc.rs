//! The commands of SPC-4 that all device types answer alike.
//!
//! What differs between device types is asked of [`LogicalUnit`]; no medium is touched. Follows SPC-4.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use protocol::scsi::alua::{self, TargetPortGroup};
use protocol::scsi::inquiry::{self, StandardInquiry, page};
use protocol::scsi::mode::{self, ModeForm, ModePage, ModeSelection, PageControl};
use protocol::scsi::{CommandSpec, DeviceType, FieldPointer, LunAddress, Sense, SenseFormat, log, report, spc};
use tracing::warn;

use super::dispatch::{Command, Reply, Run, answer, commands};
use super::{CopyService, LogicalUnit, reservation, shield};
use crate::lun::Device;
use crate::nexus::Nexus;
use crate::task::{Execution, Response, Task};

/// Carries the table: a generic constant needs a type to stand in.
pub(super) struct Shared<D>(PhantomData<D>);

impl<D: LogicalUnit> Shared<D> {
    /// What every device type serves.
    pub(super) const COMMANDS: &'static [Command<D>] = &[
        Command { spec: &spc::TEST_UNIT_READY, run: Run::Inline(|_, _| Ok(Response::good())) },
        Command { spec: &spc::REQUEST_SENSE, run: Run::Inline(request_sense) },
        Command { spec: &spc::INQUIRY, run: Run::Inline(inquiry) },
        Command { spec: &spc::MODE_SELECT_6, run: Run::Start(mode_select_6) },
        Command { spec: &spc::RESERVE_6, run: Run::Inline(reservation::reserve) },
        Command { spec: &spc::RELEASE_6, run: Run::Inline(reservation::release) },
        Command { spec: &spc::MODE_SENSE_6, run: Run::Inline(mode_sense_6) },
        Command { spec: &spc::LOG_SENSE, run: Run::Inline(log_sense) },
        Command { spec: &spc::MODE_SELECT_10, run: Run::Start(mode_select_10) },
        Command { spec: &spc::RESERVE_10, run: Run::Inline(reservation::reserve) },
        Command { spec: &spc::RELEASE_10, run: Run::Inline(reservation::release) },
        Command { spec: &spc::MODE_SENSE_10, run: Run::Inline(mode_sense_10) },
        Command { spec: &spc::READ_KEYS, run: Run::Inline(reservation::persistent_reserve_in) },
        Command { spec: &spc::READ_RESERVATION, run: Run::Inline(reservation::persistent_reserve_in) },
        // Asks whether there is a file to keep them in, which a change may hold.
        Command { spec: &spc::REPORT_CAPABILITIES, run: Run::Blocking(reservation::persistent_reserve_in) },
        Command { spec: &spc::READ_FULL_STATUS, run: Run::Inline(reservation::persistent_reserve_in) },
        Command { spec: &spc::REGISTER, run: Run::Blocking(reservation::persistent_reserve_out) },
        Command { spec: &spc::RESERVE, run: Run::Blocking(reservation::persistent_reserve_out) },
        Command { spec: &spc::RELEASE, run: Run::Blocking(reservation::persistent_reserve_out) },
        Command { spec: &spc::CLEAR, run: Run::Blocking(reservation::persistent_reserve_out) },
        Command { spec: &spc::PREEMPT, run: Run::Blocking(reservation::persistent_reserve_out) },
        Command { spec: &spc::PREEMPT_AND_ABORT, run: Run::Async(reservation::persistent_reserve_out_and_abort) },
        Command { spec: &spc::REGISTER_AND_IGNORE_EXISTING_KEY, run: Run::Blocking(reservation::persistent_reserve_out) },
        Command { spec: &spc::REGISTER_AND_MOVE, run: Run::Blocking(reservation::persistent_reserve_out) },
        Command { spec: &spc::EXTENDED_COPY, run: Run::Start(third_party_copy_out) },
        Command { spec: &spc::EXTENDED_COPY_LID4, run: Run::Start(third_party_copy_out) },
        Command { spec: &spc::COPY_OPERATION_ABORT, run: Run::Start(third_party_copy_out) },
        Command { spec: &spc::RECEIVE_COPY_STATUS, run: Run::Start(receive_copy) },
        Command { spec: &spc::RECEIVE_COPY_DATA, run: Run::Start(receive_copy) },
        Command { spec: &spc::RECEIVE_COPY_OPERATING_PARAMETERS, run: Run::Start(receive_copy) },
        Command { spec: &spc::RECEIVE_COPY_FAILURE_DETAILS, run: Run::Start(receive_copy) },
        Command { spec: &spc::RECEIVE_COPY_STATUS_LID4, run: Run::Start(receive_copy) },
        Command { spec: &spc::RECEIVE_COPY_DATA_LID4, run: Run::Start(receive_copy) },
        Command { spec: &spc::REPORT_LUNS, run: Run::Inline(|_, task| report_luns(task)) },
        Command { spec: &spc::REPORT_TARGET_PORT_GROUPS, run: Run::Inline(report_target_port_groups) },
        Command { spec: &spc::REPORT_SUPPORTED_OPERATION_CODES, run: Run::Inline(report_supported_operation_codes) },
        Command { spec: &spc::REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS, run: Run::Inline(report_supported_tmf) },
    ];
}

/// THIRD-PARTY COPY OUT and IN: no commands of a logical unit without a copy service.
pub(super) const fn is_third_party_copy(opcode: u8) -> bool {
    matches!(opcode, 0x83 | 0x84)
}

/// Data-In cut at the ALLOCATION LENGTH. The lengths inside the data tell the whole. SPC-4, "Allocation length".
#[must_use]
pub fn data_in(mut data: Vec<u8>, allocation_length: impl Into<u64>) -> Response {
    data.truncate(usize::try_from(allocation_length.into()).unwrap_or(usize::MAX));
    Response::data(data)
}

/// The parameter list of a command whose CDB says it has `parameter_list_length` bytes; what was sent beyond is not looked at.
///
/// # Errors
/// PARAMETER LIST LENGTH ERROR when fewer bytes came.
pub fn parameter_list(task: &Task, parameter_list_length: usize) -> Result<Bytes, Sense> {
    let list = task.parameter_list();
    if list.len() < parameter_list_length {
        return Err(Sense::PARAMETER_LIST_LENGTH_ERROR);
    }
    Ok(list.slice(..parameter_list_length))
}

/// A unit attention is returned as data, and cleared by that; else how the logical unit is.
fn request_sense<D: LogicalUnit>(device: &D, task: &Task) -> Reply {
    let cdb: spc::RequestSenseCdb = task.cdb.read();
    let attention = device.common().attentions.take(task.nexus.id);
    let under_way = || device.common().background.condition();
    let sense = attention.or_else(under_way).or_else(|| device.condition()).unwrap_or(Sense::NO_ADDITIONAL_SENSE_INFORMATION);
    Ok(data_in(sense.emit(if cdb.descriptor() { SenseFormat::Descriptor } else { SenseFormat::Fixed }), cdb.allocation_length))
}

fn inquiry<D: LogicalUnit>(device: &D, task: &Task) -> Reply {
    let cdb: spc::InquiryCdb = task.cdb.read();
    let unknown_page = Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(2));
    let data = match cdb.vital_product_data() {
        false if cdb.page_code != 0 => return Err(unknown_page),
        false => standard_inquiry(device),
        true => {
            let body = vpd_body(device, cdb.page_code, task).ok_or(unknown_page)?;
            inquiry::vpd_page(D::DEVICE_TYPE, cdb.page_code, &body)
        }
    };
    Ok(data_in(data, cdb.allocation_length.get()))
}

fn standard_inquiry<D: LogicalUnit>(device: &D) -> Vec<u8> {
    let common = device.common();
    let identity = &common.identity;
    StandardInquiry {
        device_type: Some(D::DEVICE_TYPE),
        removable: device.removable(),
        implicit_asymmetric_access: true,
        third_party_copy: common.copy.is_some(),
        vendor: &identity.vendor,
        product: &identity.product,
        revision: &identity.revision,
        versions: D::VERSION_DESCRIPTORS,
    }
    .emit()
}

fn vpd_body<D: LogicalUnit>(device: &D, code: u8, task: &Task) -> Option<Vec<u8>> {
    let common = device.common();
    match code {
        page::SUPPORTED => Some(vpd_pages(device)),
        page::UNIT_SERIAL_NUMBER => Some(common.identity.serial.clone().into_bytes()),
        page::DEVICE_IDENTIFICATION => {
            Some(inquiry::device_identification(&common.identity.designators_at(task.nexus.portal_group)))
        }
        page::EXTENDED_INQUIRY => Some(inquiry::extended_inquiry()),
        page::THIRD_PARTY_COPY => {
            let device = task.nexus.luns.get(task.lun)?;
            Some(common.copy.as_ref()?.third_party_copy_page(&device))
        }
        _ if D::VPD_PAGES.contains(&code) => device.vpd_page(code),
        _ => None,
    }
}

/// Ascending, as the standard wants them.
fn vpd_pages<D: LogicalUnit>(device: &D) -> Vec<u8> {
    let mut pages = vec![page::SUPPORTED, page::UNIT_SERIAL_NUMBER, page::DEVICE_IDENTIFICATION, page::EXTENDED_INQUIRY];
    pages.extend(device.common().copy.is_some().then_some(page::THIRD_PARTY_COPY));
    pages.extend(D::VPD_PAGES);
    pages.sort_unstable();
    pages
}

/// DBD of MODE SENSE: no block descriptor is wanted.
const DISABLE_BLOCK_DESCRIPTORS: u8 = 0x08;
/// LLBAA of MODE SENSE(10): a block descriptor of sixteen bytes may be sent.
const LONG_LBA_ACCEPTED: u8 = 0x10;

/// Page code 00h is vendor specific. From tapes programs have always got header and block descriptor alone: Linux's st opens with it.
const NO_PAGE: u8 = 0x00;

fn mode_sense_6<D: LogicalUnit>(device: &D, task: &Task) -> Reply {
    let cdb: spc::ModeSense6Cdb = task.cdb.read();
    let data = mode_sense(device, task, ModeForm::Six, cdb.flags, cdb.page, cdb.subpage)?;
    Ok(data_in(data, cdb.allocation_length))
}

fn mode_sense_10<D: LogicalUnit>(device: &D, task: &Task) -> Reply {
    let cdb: spc::ModeSense10Cdb = task.cdb.read();
    let data = mode_sense(device, task, ModeForm::Ten, cdb.flags, cdb.page, cdb.subpage)?;
    Ok(data_in(data, cdb.allocation_length.get()))
}

fn mode_sense<D: LogicalUnit>(
    device: &D,
    task: &Task,
    form: ModeForm,
    flags: u8,
    page: u8,
    subpage: u8,
) -> Result<Vec<u8>, Sense> {
    let (control, saved) = (PageControl::from_bits(page >> 6), &device.common().saved_modes);
    if control == PageControl::Saved && !saved.is_served() {
        return Err(Sense::SAVING_PARAMETERS_NOT_SUPPORTED.at(FieldPointer::cdb_bit(2, 7)));
    }
    let code = page & 0x3F;
    let mut pages: Vec<_> = device.mode_pages().into_iter().filter(|page| page.asked_for(code, subpage)).collect();
    pages.iter_mut().for_each(|page| page.savable &= saved.is_served());
    if pages.is_empty() && code != mode::ALL_PAGES && !(code == NO_PAGE && D::DEVICE_TYPE == DeviceType::Tape) {
        let known = device.mode_pages().iter().any(|page| page.code == code);
        let field = if known { FieldPointer::cdb(3) } else { FieldPointer::cdb_bit(2, 5) };
        return Err(Sense::INVALID_FIELD_IN_CDB.at(field));
    }
    let mut header = device.mode_header(flags & LONG_LBA_ACCEPTED != 0);
    if shield::is_shielded(task, D::DEVICE_TYPE) {
        header.device_specific |= shield::WP;
    }
    if flags & DISABLE_BLOCK_DESCRIPTORS != 0 {
        header.block_descriptor.clear();
    }
    let body = |page: &ModePage| match control {
        PageControl::Current => page.current.clone(),
        PageControl::Changeable => page.changeable.clone(),
        PageControl::Default => page.default.clone(),
        PageControl::Saved => saved.values(page),
    };
    Ok(mode::emit(form, &header, pages.iter().map(|page| (page, body(page)))))
}

/// PF of MODE SELECT: the pages are in the standard's form.
const PAGE_FORMAT: u8 = 0x10;
/// SP of MODE SELECT: all pages that can be saved are, once the new values hold.
const SAVE_PAGES: u8 = 0x01;

fn mode_select_6<D: LogicalUnit>(device: &Arc<D>, task: Task) -> Execution {
    let cdb: spc::ModeSelect6Cdb = task.cdb.read();
    start_mode_select(device, task, &spc::MODE_SELECT_6, ModeForm::Six, cdb.flags, cdb.parameter_list_length.into())
}

fn mode_select_10<D: LogicalUnit>(device: &Arc<D>, task: Task) -> Execution {
    let cdb: spc::ModeSelect10Cdb = task.cdb.read();
    start_mode_select(device, task, &spc::MODE_SELECT_10, ModeForm::Ten, cdb.flags, cdb.parameter_list_length.get().into())
}

/// Only one that saves has to wait for anything.
fn start_mode_select<D: LogicalUnit>(
    device: &Arc<D>,
    task: Task,
    spec: &'static CommandSpec,
    form: ModeForm,
    flags: u8,
    parameter_list_length: usize,
) -> Execution {
    if flags & SAVE_PAGES == 0 {
        return Execution::Done(answer(spec, mode_select(&**device, &task, form, flags, parameter_list_length)));
    }
    let device = Arc::clone(device);
    let run = move || {
        let saved = &device.common().saved_modes;
        if !saved.is_served() {
            return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 0)));
        }
        let response = mode_select(&*device, &task, form, flags, parameter_list_length)?;
        saved.save(&device.mode_pages()).map_err(|error| {
            warn!(%error, "mode pages could not be saved");
            Sense::INTERNAL_TARGET_FAILURE
        })?;
        Ok(response)
    };
    Execution::Blocking(Box::new(move || answer(spec, run())))
}

fn mode_select<D: LogicalUnit>(device: &D, task: &Task, form: ModeForm, flags: u8, parameter_list_length: usize) -> Reply {
    if parameter_list_length == 0 {
        return Ok(Response::good());
    }
    let before = (device.mode_header(false), device.mode_pages());
    let list = parameter_list(task, parameter_list_length)?;
    let selection = ModeSelection::parse(form, &list, &before.1)?;
    // Old initiators send the header and the block descriptor alone with PF clear: that is the same in every form.
    if flags & PAGE_FORMAT == 0 && !selection.pages.is_empty() {
        return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 4)));
    }
    device.select_mode(&selection)?;
    if before != (device.mode_header(false), device.mode_pages()) {
        device.common().attentions.establish_for_all(&Sense::MODE_PARAMETERS_CHANGED, Some(task.nexus.id));
    }
    Ok(Response::good())
}

/// Page 00h with subpage FFh: the list of pages and subpages.
const SUPPORTED_SUBPAGES: (u8, u8) = (0x00, 0xFF);

fn log_sense<D: LogicalUnit>(device: &D, task: &Task) -> Reply {
    let cdb: spc::LogSenseCdb = task.cdb.read();
    let pointer = cdb.parameter_pointer.get();
    let (code, subpage) = (cdb.page & 0x3F, cdb.subpage);
    let all = || [(0, 0), SUPPORTED_SUBPAGES].into_iter().chain(D::LOG_PAGES.iter().copied()).collect::<Vec<_>>();
    let parameters = match (code, subpage) {
        (0, 0) => log::supported(&all(), false),
        SUPPORTED_SUBPAGES => log::supported(&all(), true),
        page if D::LOG_PAGES.contains(&page) => {
            device.log_page(page, pointer).ok_or(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(5)))?
        }
        _ => return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(2, 5))),
    };
    Ok(data_in(log::page(code, subpage, &parameters), cdb.allocation_length.get()))
}

/// All of THIRD-PARTY COPY OUT.
pub(in crate::lun) fn third_party_copy_out<D: LogicalUnit>(device: &Arc<D>, task: Task) -> Execution {
    Arc::clone(copy_service(&**device)).third_party_copy_out(device.device(), task)
}

/// All of THIRD-PARTY COPY IN.
pub(in crate::lun) fn receive_copy<D: LogicalUnit>(device: &Arc<D>, task: Task) -> Execution {
    Execution::Done(copy_service(&**device).receive_copy(&device.device(), &task))
}

fn copy_service<D: LogicalUnit>(device: &D) -> &Arc<dyn CopyService> {
    device.common().copy.as_ref().expect("dispatch leaves third-party copy out where no service is")
}

/// The logical units of the nexus that asks. SELECT REPORT 01h asks for well-known ones, of which there are none.
pub(in crate::lun) fn report_luns(task: &Task) -> Reply {
    let cdb: spc::ReportLunsCdb = task.cdb.read();
    // SPC-4, "REPORT LUNS command": who asks is told by the answer, whichever logical unit it was to hear it from.
    for (_, device) in task.nexus.luns.all() {
        device.common().attentions.withdraw(task.nexus.id, &Sense::REPORTED_LUNS_DATA_HAS_CHANGED);
    }
    let data = match cdb.select_report {
        0 | 2 => report::luns(lun_addresses(&task.nexus)),
        1 => report::luns([]),
        _ => return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(2))),
    };
    Ok(data_in(data, cdb.allocation_length.get()))
}

fn lun_addresses(nexus: &Nexus) -> impl Iterator<Item = LunAddress> {
    nexus.luns.all().into_iter().map(|(number, _)| LunAddress::from_number(number))
}

/// Each portal group is a target port, and a group of its own.
fn report_target_port_groups<D: LogicalUnit>(_device: &D, task: &Task) -> Reply {
    let cdb: spc::ReportTargetPortGroupsCdb = task.cdb.read();
    let groups: Vec<_> = task.nexus.target_ports().into_iter().map(|tag| TargetPortGroup { id: tag, ports: vec![tag] }).collect();
    Ok(data_in(alua::report_target_port_groups(&groups, cdb.extended()), cdb.allocation_length.get()))
}

fn report_supported_operation_codes<D: LogicalUnit>(device: &D, task: &Task) -> Reply {
    let cdb: spc::ReportSupportedOperationCodesCdb = task.cdb.read();
    let rows: Vec<_> = commands(device).map(|command| command.spec).collect();
    Ok(data_in(report::supported_operation_codes(&cdb, &rows, copy_wait_s(&task.nexus))?, cdb.allocation_length.get()))
}

/// How long a copy of a nexus may wait, whichever disks that it can name are its sources; in whole seconds.
fn copy_wait_s(nexus: &Nexus) -> u32 {
    let waits = nexus.luns.all().into_iter().filter_map(|(_, device)| match device {
        Device::Disk(disk) => Some(disk.view_rules().timeout(false)),
        _ => None,
    });
    waits.max().map_or(0, |wait| wait.as_secs_f64().ceil() as u32)
}

fn report_supported_tmf<D: LogicalUnit>(_device: &D, task: &Task) -> Reply {
    let cdb: spc::ReportSupportedTmfCdb = task.cdb.read();
    Ok(data_in(report::supported_task_management_functions(cdb.extended()), cdb.allocation_length.get()))
}
