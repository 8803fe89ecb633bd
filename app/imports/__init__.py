"""People taken into the register from the lists that offices keep: 附件3 as XLSX or CSV, and what resembles it.

`files` makes rows of bytes, `columns` finds the table among titles and notes, `reading` makes a draft of each row,
`judging` compares it with the register, `work` does the two runs (dry, then in earnest), `queue` keeps them in the
database. All of it but the queue runs in a process of its own (`python -m app.imports`): a list of 50,000 people must
not hold up an alarm, and a file that explodes must not take the server along (docs/adr/0027).
"""
