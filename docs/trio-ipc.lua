-- Wireshark's dissector for what `trio-ipc capture ENDPOINT FILE.pcapng --listen AT` writes.
--
--   tshark -X lua_script:trio-ipc.lua -r FILE.pcapng
--
-- or copy it into Wireshark's folder of personal Lua plugins (Help, About, Folders). For the fields of messages
-- Wireshark has to find the .proto: Preferences, Protocols, ProtoBuf, "Protobuf search paths".
-- trio_ipc/cli/pcapng.py says what is in a packet.

local ipc = Proto("trio_ipc", "trio_ipc messages")

ipc.prefs.request = Pref.string(
   "Type of requests", "trio_ipc.daemoneye.v1.DetectionTask", "The full name of the requests' message")
ipc.prefs.response = Pref.string(
   "Type of responses", "trio_ipc.daemoneye.v1.DetectionResult", "The full name of the responses' message")

local FRAME, BYTES, OPEN = 1, 2, 3
local KINDS = {
   [1] = "frame", [2] = "bytes that are no whole frame", [3] = "open", [4] = "no more will be sent",
   [5] = "close", [6] = "broken", [7] = "not sent after all",
}
local SIDES = { [0] = "client", [1] = "server" }
local CHECKSUMS = { [0] = "none", [1] = "right by IEEE", [2] = "right by Castagnoli", [3] = "wrong" }

local version = ProtoField.uint8("trio_ipc.version", "Version")
local kind = ProtoField.uint8("trio_ipc.kind", "Kind", base.DEC, KINDS)
local by = ProtoField.uint8("trio_ipc.by", "By", base.DEC, SIDES)
local verdict = ProtoField.uint8("trio_ipc.checksum.status", "Checksum is", base.DEC, CHECKSUMS)
local connection = ProtoField.uint32("trio_ipc.connection", "Connection")
local length = ProtoField.uint32("trio_ipc.length", "Length")
local checksum = ProtoField.uint32("trio_ipc.checksum", "Checksum", base.HEX)
local payload = ProtoField.bytes("trio_ipc.payload", "Payload")
local endpoint = ProtoField.string("trio_ipc.endpoint", "Endpoint")
ipc.fields = { version, kind, by, verdict, connection, length, checksum, payload, endpoint }

local wrong = ProtoExpert.new(
   "trio_ipc.wrong", "What the wire protocol forbids", expert.group.PROTOCOL, expert.severity.ERROR)
ipc.experts = { wrong }

function ipc.dissector(buffer, pinfo, tree)
   if buffer:len() < 8 or buffer(0, 1):uint() ~= 1 then
      return 0
   end
   local what, side, judged = buffer(1, 1):uint(), buffer(2, 1):uint(), buffer(3, 1):uint()
   local number = buffer(4, 4):le_uint()
   pinfo.cols.protocol = "trio_ipc"
   pinfo.cols.src = SIDES[side] or "?"
   pinfo.cols.dst = SIDES[1 - side] or "?"

   local root = tree:add(ipc, buffer())
   root:add(version, buffer(0, 1))
   root:add(kind, buffer(1, 1))
   root:add(by, buffer(2, 1))
   root:add(verdict, buffer(3, 1))
   root:add_le(connection, buffer(4, 4))

   local told = string.format("#%d %s", number, KINDS[what] or "?")
   if what == FRAME and buffer:len() > 16 then
      local size = buffer(8, 4):le_uint()
      root:add_le(length, buffer(8, 4))
      root:add_le(checksum, buffer(12, 4))
      root:add(payload, buffer(16))
      local name = side == 0 and ipc.prefs.request or ipc.prefs.response
      told = string.format("#%d %s, %d bytes", number, name:match("[^.]*$"), size)
      if judged == 3 then
         root:add_proto_expert_info(wrong, "the checksum is wrong by both variants")
         told = told .. ", wrong checksum"
      elseif buffer:len() == 16 + size then -- else it was cut off for its size
         pinfo.private["pb_msg_type"] = "message," .. name
         pcall(Dissector.call, Dissector.get("protobuf"), buffer(16):tvb(), pinfo, tree)
      end
   elseif what == OPEN and buffer:len() > 8 then
      root:add(endpoint, buffer(8))
   elseif what == BYTES then
      root:add(payload, buffer(8))
      root:add_proto_expert_info(wrong, "these bytes are no whole frame")
      told = string.format("%s, %d bytes", told, buffer:len() - 8)
   end
   pinfo.cols.protocol = "trio_ipc" -- not ProtoBuf, which has set it
   pinfo.cols.info = told
   return buffer:len()
end

DissectorTable.get("wtap_encap"):add(wtap.USER0, ipc)
