/*
 * A backup agent of a few lines that knows nothing of offhost: SPC-4 and SSC-4 by libiscsi.
 *
 *     agent backup|restore PORTAL TARGET DISK TAPE RECORDS RECORDS-A-COMMAND
 *
 * Copies RECORDS records of 64 KiB between the beginning of a disk of 512-byte blocks and the beginning of a tape by EXTENDED COPY.
 * Before each command it waits for a line on its input, and after it prints the command's status; one that is not GOOD ends it with 2.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

enum { RECORD = 65536, BLOCK = 512, CSCD = 32, SEGMENT = 24, MOST = RECORD / BLOCK };

static struct iscsi_context *session;

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, iscsi_get_error(session));
	exit(1);
}

static int command(int lun, unsigned char *cdb, int cdb_size, unsigned char *out, size_t len)
{
	struct scsi_task *task = scsi_create_task(cdb_size, cdb, out ? SCSI_XFER_WRITE : SCSI_XFER_NONE, len);
	struct iscsi_data data = { .size = len, .data = out };

	if (!task || !iscsi_scsi_command_sync(session, lun, task, out ? &data : NULL))
		fail("command");
	int status = task->status;
	scsi_free_scsi_task(task);
	return status;
}

static void must(const char *what, int lun, unsigned char *cdb, int cdb_size)
{
	if (command(lun, cdb, cdb_size, NULL, 0) != SCSI_STATUS_GOOD)
		fail(what);
}

/* Identification Descriptor CSCD descriptor (E4h): the logical unit's NAA designator. */
static void name_unit(unsigned char *cscd, int lun, int device_type)
{
	struct scsi_task *task = iscsi_inquiry_sync(session, lun, 1, 0x83, 255);
	struct scsi_inquiry_device_identification *page = task ? scsi_datain_unmarshall(task) : NULL;
	struct scsi_inquiry_device_designator *one = page ? page->designators : NULL;

	while (one && !(one->designator_type == SCSI_DESIGNATOR_TYPE_NAA && one->association == SCSI_ASSOCIATION_LOGICAL_UNIT))
		one = one->next;
	if (!one || one->designator_length > 20)
		fail("INQUIRY");
	cscd[0] = 0xE4;
	cscd[1] = device_type;
	cscd[4] = one->code_set;
	cscd[5] = one->designator_type;
	cscd[7] = one->designator_length;
	memcpy(cscd + 8, one->designator, one->designator_length);
	if (device_type == 0)
		cscd[30] = BLOCK >> 8;
	scsi_free_scsi_task(task);
}

static void put32(unsigned char *at, uint32_t value)
{
	for (int byte = 0; byte < 4; byte++)
		at[byte] = value >> (24 - 8 * byte);
}

int main(int argc, char **argv)
{
	if (argc != 8)
		return 1;
	int backup = !strcmp(argv[1], "backup"), disk = atoi(argv[4]), tape = atoi(argv[5]);
	int records = atoi(argv[6]), at_once = atoi(argv[7]);

	session = iscsi_create_context("iqn.2026-01.test:agent");
	iscsi_set_targetname(session, argv[3]);
	iscsi_set_session_type(session, ISCSI_SESSION_NORMAL);
	iscsi_set_timeout(session, 60);
	if (iscsi_full_connect_sync(session, argv[2], disk) != 0)
		fail("login");
	/* Unit attentions are told first. */
	for (int turn = 0; turn < 3; turn++) {
		command(disk, (unsigned char[6]){ 0 }, 6, NULL, 0);
		command(tape, (unsigned char[6]){ 0 }, 6, NULL, 0);
	}
	must("REWIND", tape, (unsigned char[6]){ 0x01 }, 6);

	/* LIST ID 1, held data is not wanted; the disk is CSCD 0 and the tape CSCD 1; one segment of 00h or 01h for each record. */
	size_t size = 16 + 2 * CSCD + (size_t)at_once * SEGMENT;
	unsigned char *list = calloc(1, size);
	list[0] = 1;
	list[1] = 2 << 3;
	list[3] = 2 * CSCD;
	name_unit(list + 16, disk, 0);
	name_unit(list + 16 + CSCD, tape, 1);
	for (int record = 0; record < records; record += at_once) {
		int count = records - record < at_once ? records - record : at_once;
		size_t length = 16 + 2 * CSCD + (size_t)count * SEGMENT;
		unsigned char cdb[16] = { 0x83 };

		put32(list + 8, count * SEGMENT);
		put32(cdb + 10, length);
		for (int n = 0; n < count; n++) {
			unsigned char *segment = list + 16 + 2 * CSCD + n * SEGMENT;
			segment[0] = backup ? 0x00 : 0x01;
			segment[3] = 0x14;
			segment[5] = backup ? 0 : 1;
			segment[7] = backup ? 1 : 0;
			put32(segment + 8, RECORD);
			segment[15] = MOST;
			put32(segment + 20, (uint32_t)(record + n) * MOST);
		}
		if (getchar() == EOF)
			return 1;
		int status = command(tape, cdb, 16, list, length);
		printf("%d\n", status);
		fflush(stdout);
		if (status != SCSI_STATUS_GOOD)
			return 2;
	}
	/* WRITE FILEMARKS(6), one; SYNCHRONIZE CACHE(10). */
	if (backup)
		must("WRITE FILEMARKS", tape, (unsigned char[6]){ 0x10, 0, 0, 0, 1 }, 6);
	else
		must("SYNCHRONIZE CACHE", disk, (unsigned char[10]){ 0x35 }, 10);
	iscsi_logout_sync(session);
	return 0;
}
