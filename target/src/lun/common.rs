//! What every device type does alike: identity, unit attentions, INQUIRY, REPORT LUNS, REPORT SUPPORTED OPERATION CODES.
