"""What a lead costs, who pays and what comes back: functions of values, with no clock, no random and no I/O."""
